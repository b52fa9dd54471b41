"""The page of ``semimedref demo``: one edits the sentence beside a picture and sees the mask follow.

Python's own web server and one HTML file do it, so that it needs no extra and no network.
"""
