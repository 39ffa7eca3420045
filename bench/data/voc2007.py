"""PASCAL VOC 2007 segmentation: 209 / 213 / 210 images, 21 classes with background."""

from bench.data.voc import VOC


class VOC2007(VOC):
    """The set of the 2007 challenge; its test labels are public."""

    title = "PASCAL VOC 2007 segmentation"
    year = "2007"
    splits = ("train", "val", "trainval", "test")
    num_images = {"train": 209, "val": 213, "trainval": 422, "test": 210}
    layout = (
        "Expected the VOCdevkit folder (or its VOC2007) with JPEGImages, SegmentationClass and "
        "ImageSets/Segmentation/{train,val,trainval,test}.txt; test is an archive of its own."
    )
    citation = """@misc{pascal-voc-2007,
  author = {Everingham, M. and Van~Gool, L. and Williams, C. K. I. and Winn, J. and Zisserman, A.},
  title = {The {PASCAL} {V}isual {O}bject {C}lasses {C}hallenge 2007 {(VOC2007)} {R}esults},
  year = {2007}
}"""
