"""The words that the reader of free texts knows (:mod:`.reading`), by what they say. Each kind has a letter.

A sentence about the lungs names a place only if the reader knows every word of it. So a word that is missing here can
make the reader silent, but not wrong.
"""

from __future__ import annotations

import re
from functools import lru_cache

KINDS = {
    # what the masks may show
    "F": "opacity opacities opacified opacification opaque consolidation consolidations consolidated consolidative "
    "consolidating infiltrate infiltrates infiltration infiltrations infiltrative haze hazy haziness pneumonia "
    "pneumonias pneumonitis bronchopneumonia shadow shadows shadowing infection infections infected infective "
    "infectious lesion lesions mass masses nodule nodules nodular nodularity micronodules spot spots patch patches "
    "tumour tumours tumor tumors cancer carcinoma metastasis metastases abscess abscesses granuloma granulomas "
    "bronchiectasis fibrosis fibrotic scarring atelectasis atelectatic collapse collapsed ggo ggos glass groundglass "
    "disease diseased cloudy clouding density densities change changes abnormality abnormalities affected involved "
    "involvement involves involving inflammation inflamed inflammatory tuberculosis tb covid paving reticulation "
    "reticulations honeycombing emphysema process airspace "
    "white blurry blurred",
    # other findings, which a mask of lesions need not show
    "E": "effusion effusions pneumothorax pneumothoraces hydropneumothorax cardiomegaly cavitation cavitations cavity "
    "cavities calcification calcifications oedema edema lymphadenopathy fracture fractures ulceration ulcerations "
    "bleeding haemorrhage hemorrhage haemothorax hemothorax empyema",
    "n": "no without",
    "N": "not",
    "o": "or nor either neither",
    "v": "is are was were be been being has have appear appears appearing remain remains remaining look looks show "
    "shows showing shown demonstrate demonstrates demonstrating",
    # not affected
    "s": "clear normal unremarkable spared healthy unaffected uninvolved intact preserved free aerated aeration "
    "expanded ventilated inflated good okay",
    # no longer there
    "g": "resolved resolution gone disappeared disappearance vanished cleared resected removed excised healed",
    "b": "fully completely entirely totally now well normally grossly otherwise currently interval",
    "e": "seen noted identified visible visualised visualized detected present evident found observed sees",
    "r": "evidence sign signs suggestion",
    "p": "previous previously prior earlier former formerly known",
    # surgery and devices
    "m": "lobectomy pneumonectomy segmentectomy wedge resection thoracotomy surgery surgical postsurgical "
    "postoperative status post clip clips suture sutures pacemaker pacer icd defibrillator generator port portacath "
    "catheter catheters drain drains tube tubes leads picc stent wire wires electrode electrodes monitor",
    "q": "remainder rest contralateral opposite other elsewhere",
    "z": "heart cardiac mediastinum mediastinal cardiomediastinal silhouette contour contours pleura pleural bones "
    "bony hila hilum size limits diaphragm",
    # words that cannot deny a finding
    "a": "focal diffuse patchy multifocal confluent dense subtle faint ill defined peripheral peripherally subpleural "
    "central posterior anterior lateral medial posteriorly anteriorly laterally medially round rounded linear "
    "bandlike reticular reticulonodular interstitial alveolar ground viral bacterial fungal atypical acute pulmonary "
    "lung lungs lobar segmental subsegmental homogeneous heterogeneous inhomogeneous irregular spiculated coarse fine "
    "scattered multiple several single solitary few many numerous discrete definite obvious suspicious associated air "
    "bronchogram bronchograms wide long thick thin walled cavitary cavitating predominantly predominant mainly mostly "
    "mild moderate severe mildly moderately severely minimal minor slight slightly similar extensive marked unilateral "
    "crazy tree bud space calcified bronchial parenchymal localised localized aspiration malignancy malignant neoplasm "
    "neoplastic contusion early band bands streaky",
    "c": "small large larger big bigger tiny new increase increased increasing worsened worsening progressed "
    "progression progressive developed developing persist persists persisting persistent persistently stable unchanged "
    "again still residual recurrent additional further another",
    "w": "with measuring measures",
    # what a finding may be
    "i": "representing represent represents reflecting reflect reflects suggestive suggesting suggests consistent "
    "compatible keeping suspicion suspected concerning worrisome indicative due secondary likely probable probably",
    "k": "also where it they them this that these those which there here location located site side most more part "
    "parts one two three four five six seven eight nine ten eleven twelve area areas can made out lie lies lying "
    "sit sits sitting occupying occupies extending extends throughout patient film chest xray ray x cxr ct scan image "
    "radiograph study finding findings impression conclusion opinion report pa ap frontal view i we mm cm about "
    "each bilateral bilaterally both predominating distribution nature number total i.e namely",
    "t": "the a an of in on at within to from any over overlying across for as by some all whole entire",
    "&": "and plus",
    # a sentence with one of these is not understood, whatever else it says
    "D": "0 had non never none absent absence negative clearing clears sparing spares resolving denies denied except "
    "excepting excluding exclude excluded rule ruled rather instead than unlike compared history outside beyond "
    "ipsilateral versus vs nothing cannot nil zero minus sans lacks lacking lack devoid barring save apart aside "
    "improvement improved improving improves regression regressed decrease decreased decreasing less unlikely doubtful "
    "questionable query equivocal possible possibly may might could artefact artefacts artifact artifacts "
    "artefactual artifactual indication reason clinical comparison technique recommend recommended "
    "follow followup repeat before after until unless if disappears disappearing partially partly nearly almost "
    "hardly barely scarcely",
    # in a chest, not a lesion or no longer one
    "x": "projection projectional overlap overlapping superimposed superimposition summation nipple nipples breast "
    "breasts skin fold rotation rotated motion old chronic treated sharp smooth symmetrical symmetric ok line lines",
}
_KIND_OF = {word: kind for kind, words in KINDS.items() for word in words.split()}
_NUMBER = re.compile(r"(?!(?:19|20)\d\d$)\d+(?:\.\d+)?(?:st|nd|rd|th|mm|cm)?")  # but no year
_SIGNS = {**dict.fromkeys(",:()-–—/\"'.[]%*+•x×", ","), "&": "&"}


@lru_cache(maxsize=2**14)
def kind_of(word: str) -> str:
    """The letter of a word or a sign; "u" for one that the reader does not know.

    >>> [kind_of(word) for word in ("opacity", "resolved", "normal", "17", "lemon")]
    ['F', 'g', 's', 'k', 'u']
    """
    return _KIND_OF.get(word) or ("k" if _NUMBER.fullmatch(word) else _SIGNS.get(word, "u"))
