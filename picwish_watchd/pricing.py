"""What PicWish takes for an image."""

#: Credits by `type` (API document, guideline 4).
PRICES = {0: 5, 1: 4}
