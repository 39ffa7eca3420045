"""PASCAL VOC 2012 segmentation: 1,464 / 1,449 images, 21 classes with background."""

from bench.data.voc import VOC

CITATION = """@misc{pascal-voc-2012,
  author = {Everingham, M. and Van~Gool, L. and Williams, C. K. I. and Winn, J. and Zisserman, A.},
  title = {The {PASCAL} {V}isual {O}bject {C}lasses {C}hallenge 2012 {(VOC2012)} {R}esults},
  year = {2012}
}"""


class VOC2012(VOC):
    """The set of the 2012 challenge, whose test labels are not public."""

    title = "PASCAL VOC 2012 segmentation"
    year = "2012"
    splits = ("train", "val", "trainval")
    num_images = {"train": 1464, "val": 1449, "trainval": 2913}
    withheld = {
        "test": "the labels of the test split are kept by the challenge's server; use val.",
    }
    layout = (
        "Expected the VOCdevkit folder (or its VOC2012) with JPEGImages, SegmentationClass and "
        "ImageSets/Segmentation/{train,val,trainval}.txt."
    )
    citation = CITATION
