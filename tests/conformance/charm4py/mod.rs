//! The programs of charm4py's `tests` folder, one module each, in one file per folder there.

mod array_maps;
mod callbacks;
mod channels;
mod collections;
mod dcopy;
mod entry_methods;
mod exceptions;
mod futures;
mod migration;
mod qd;
mod reductions;
mod sections;
mod thread_entry_methods;
mod when;
