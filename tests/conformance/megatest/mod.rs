//! The programs of Charm++'s `tests/charm++/megatest`.
