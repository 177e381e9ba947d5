//! What goes wrong in charm4py, Charm++ and HAPI, often against what their manuals say, and must not here: each test is
//! named after what a program may rely on instead, and says what the trap was.

mod collections;
mod devices;
mod hangs;
mod messages;
mod moving;
mod waiting;
