//! What goes wrong in charm4py and Charm++, against what their manuals say, and must not here.
