//! What the codes are called.

use super::{Out, driver};
use crate::code::Code;

driver! {
    fn cuGetErrorName(error: i32, name: Out<*const u8>) {
        let (text, _) = Code::describe(error).ok_or(Code::INVALID_VALUE)?;
        name.put(text.as_ptr())
    }

    fn cuGetErrorString(error: i32, description: Out<*const u8>) {
        let (_, text) = Code::describe(error).ok_or(Code::INVALID_VALUE)?;
        description.put(text.as_ptr())
    }
}
