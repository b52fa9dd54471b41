"""The page of ``semimedref demo``: the user edits the sentence beside a picture, and the mask follows.

It uses Python's web server and one HTML file, so it needs no extra package and no network.
"""
