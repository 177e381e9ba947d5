//! A limit for the time of a kernel: what is said when it is passed.
//!
//! A kernel cannot be stopped. One that passes the limit is *overdue*: its waiter gets a fault, its device counts as lost, and all
//! that is in flight or follows there fails with the same fault. The operation keeps what it uses until it has ended after all, if
//! ever: what it may still touch is nobody else's before.

use std::time::Duration;

use crate::caught::Caught;

/// Why an operation fails that is overdue.
pub(crate) fn overdue(limit: Duration) -> Caught {
    let message = format!(
        "it has run for more than {} s, which is the limit (`--device-timeout`); the device counts as lost",
        limit.as_secs_f64()
    );
    Caught { message: message.into(), location: None }
}
