"""Types of a dataset: its files, classes and splits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from fcnlab.config.base import Config, Count, Doc, Entry, Place, Whole
from fcnlab.config.mask_values import MaskValue, Named, as_said, check_values, classes_of, values_of


class Splits(Config):
    """Which split of the dataset serves which purpose.

    The epoch may be selected on `val`; the figure is reported on `test`, and on `val` where no `test` exists.
    """

    train: str = "train"
    val: str = "val"
    test: str | None = None


class Size(Config):
    """Height and width in pixels."""

    height: Count
    width: Count


class ShapesOptions(Config):
    """How many scenes each split of `shapes` has, how large they are, and the seed they are drawn from."""

    train: Count = 240
    val: Count = 60
    test: Count = 120
    height: Annotated[int, Field(strict=True, ge=32, le=1024)] = 96
    width: Annotated[int, Field(strict=True, ge=32, le=1024)] = 128
    seed: Whole = 0


class Fractions(Config):
    """A split of a folder by chance: the parts of all images that are `val` and `test`; the rest is `train`.

    The same ids and seed give the same split everywhere. With `test`, the dataset has a split of that name.
    """

    val: Annotated[float, Field(gt=0, lt=1)]
    test: Annotated[float, Field(ge=0, lt=1)] = 0.0
    seed: Whole = 0

    @model_validator(mode="after")
    def _leave_some_to_train(self) -> Fractions:
        if self.val + self.test >= 1:
            raise ValueError(f"val {self.val} and test {self.test} leave nothing to train on")
        return self


Classes = Annotated[Named, BeforeValidator(classes_of), PlainSerializer(as_said)]


MaskValues = Annotated[tuple[MaskValue, ...], BeforeValidator(values_of)]


class Dataset(Entry):
    """Images, labels, splits, and the size at which its costs are stated.

    `folder` is where the files of a dataset with a known layout lie below the data root; generated ones have none.

    A dataset of type `folder` is any pair of folders, `images` and `masks`, absolute or below the data root. `classes`
    are names in the order of the labels with the values of the mask that mean them: numbers of an 8-bit or palette
    mask, or colours of an RGB one; a plain list has the numbers 0, 1, ... Values under `ignore` do not count, nor does
    the number 255 where it is no class. The splits come from one of three: `{split}` in both folders stands for the
    split's name; `lists` are text files of ids by split, in the lab or below the data root; `fractions` divide by
    chance. `image_suffix` and `mask_suffix` are what follows the id in the names of files, before the extension.
    `unpaired: skip` leaves out images that have no mask.
    """

    type: Literal["shapes", "camvid", "voc2012", "cityscapes", "ade20k", "folder"]
    folder: str | None = None
    options: ShapesOptions = ShapesOptions()
    images: str | None = Place(None)
    masks: str | None = Place(None)
    image_suffix: str = Place("")
    mask_suffix: str = Place("")
    unpaired: Literal["refuse", "skip"] = Place("refuse")
    classes: Classes = ()
    ignore: MaskValues = ()
    lists: dict[str, str] = Place({})
    fractions: Fractions | None = None
    splits: Splits = Splits()
    nominal: Size = Doc()

    @property
    def used_splits(self) -> tuple[str, ...]:
        """The splits that serve a purpose, each once."""
        splits = (self.splits.train, self.splits.val, self.splits.test)
        return tuple(dict.fromkeys(split for split in splits if split is not None))

    @model_validator(mode="after")
    def _files_or_options(self) -> Dataset:
        if self.type == "folder":
            self._check_folder()
            return self
        own = sorted(name for name in _OF_FOLDERS if getattr(self, name) != type(self).model_fields[name].default)
        if own:
            raise ValueError(f"a dataset of type {self.type} takes no '{own[0]}'; that is for type: folder")
        if self.type == "shapes" and self.folder is not None:
            raise ValueError("shapes is generated and takes no 'folder'")
        if self.type != "shapes" and (self.folder is None or self.options != ShapesOptions()):
            raise ValueError(f"a dataset of type {self.type} takes a 'folder' and no 'options'")
        return self

    def _check_folder(self) -> None:
        if self.folder is not None or self.options != ShapesOptions():
            raise ValueError("a dataset of type folder takes 'images' and 'masks', and no 'folder' or 'options'")
        missing = [name for name in ("images", "masks", "classes") if not getattr(self, name)]
        if missing:
            raise ValueError(f"a dataset of type folder needs '{missing[0]}'")
        check_values(self.classes, self.ignore)
        self._check_splits()

    def _check_splits(self) -> None:
        named = [str(folder).count("{split}") for folder in (self.images, self.masks)]
        ways = [any(named), bool(self.lists), self.fractions is not None]
        if sum(ways) != 1:
            raise ValueError(
                f"{'nothing says' if not any(ways) else 'more than one thing says'} what the splits are; give one of "
                "{split} in both 'images' and 'masks', 'lists', or 'fractions'"
            )
        if ways[0] and named != [1, 1]:
            raise ValueError("{split} stands once in 'images' and once in 'masks', for the name of the split")
        there = self.lists or ({"train", "val", "test"} if self.fractions and self.fractions.test else {"train", "val"})
        strange = [split for split in self.used_splits if split not in there]
        if strange and not ways[0]:
            source = "lists" if self.lists else "fractions"
            raise ValueError(f"splits: '{source}' has no split '{strange[0]}'; it has {', '.join(sorted(there))}")
        if self.fractions and self.fractions.test and self.splits.test is None:
            raise ValueError("fractions keep a test split that nothing uses; add splits: {test: test}")


_OF_FOLDERS = ("images", "masks", "image_suffix", "mask_suffix", "unpaired", "classes", "ignore", "lists", "fractions")
