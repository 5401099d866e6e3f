"""
Every error a person can meet.

* CubeoptError
  - InputError
    + ConfigError
      > StudyError
    + DataError
      > WidthError
    + DeviceError
    + RefusedError
    + UnknownNameError
    + StateError
  - CheckpointError
  - DivergedError
  - DeviceLostError
  - StorageError
    + AddressError
    + SchemaError
    + StorageLostError
  - LeaseLostError
  - StrictError

The command line prints each as one line, without a traceback, and leaves with its exit code.
"""


class CubeoptError(Exception):
    """The work could not be done."""

    exit_code = 1


class InputError(CubeoptError):
    """What the person gave cannot be used as it is."""

    exit_code = 2


class ConfigError(InputError):
    """A configuration file breaks a rule."""


class StudyError(ConfigError):
    """A study file breaks a rule, or a study cannot be created from it."""


class DataError(InputError):
    """A dataset is missing, empty, or not the one that was asked for."""


class WidthError(DataError):
    """The embeddings of a file have another width than was asked for."""

    def __init__(self, message: str, found: int) -> None:
        super().__init__(message)
        self.found = found  # numbers in an embedding of the file


class DeviceError(InputError):
    """The machine does not have the device that was asked for."""


class RefusedError(InputError):
    """A study does not take this worker: its data or its code are not the study's."""


class UnknownNameError(InputError):
    """Nothing in the storage has this name."""


class StateError(InputError):
    """What was asked for cannot be done in the state that the thing is in."""


class CheckpointError(CubeoptError):
    """A checkpoint is missing, damaged, or belongs to another configuration."""


class DivergedError(CubeoptError):
    """Training left the finite numbers."""


class DeviceLostError(CubeoptError):
    """The device failed, and this process cannot use it any more."""


class StorageError(CubeoptError):
    """PostgreSQL could not be reached or refused the statement."""

    exit_code = 3


class AddressError(StorageError):
    """The storage's address is none of PostgreSQL's."""

    exit_code = 2


class SchemaError(StorageError):
    """The tables in the database are newer than this version of cubeopt."""


class StorageLostError(StorageError):
    """PostgreSQL does not answer now, or not as it should; the same may succeed later."""


class LeaseLostError(CubeoptError):
    """A newer lease exists for this run, so this worker may not write."""


class StrictError(CubeoptError):
    """Something was left out or is suspicious, and the person asked for none of it."""
