//! The driver's functions, as C calls them, by subject.
//!
//! Each counts its calls under its name, answers with a code, and does nothing else than to look at its arguments and at
//! the state. Handles pass as numbers, which is how pointers pass.

mod context;
mod error;
mod event;
mod graph;
mod memory;
mod module;
mod nvml;
mod register;
mod stream;

/// Exports driver functions.
macro_rules! driver {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block)*) => {$(
        // SAFETY: the name and the arguments are those of the driver's function; nothing else here exports it.
        #[unsafe(no_mangle)]
        extern "C" fn $name($($argument: $type),*) -> i32 {
            crate::world::world().count_call(stringify!($name));
            let answer = || -> Result<(), crate::code::Code> { $body };
            match answer() {
                Ok(()) => 0,
                Err(code) => code.0,
            }
        }
    )*};
}
pub(crate) use driver;

use crate::code::Code;

/// Where a function puts a result.
#[repr(transparent)]
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Puts it there; fails if there is nowhere to put it.
    pub(crate) fn put(&self, value: T) -> Result<(), Code> {
        if self.0.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: the caller of a driver function hands it addresses to write results to.
        unsafe { self.0.write(value) };
        Ok(())
    }

    pub(crate) fn is_null(&self) -> bool {
        self.0.is_null()
    }
}

impl Out<u8> {
    /// Puts a C string there, cut to `len` bytes with its end.
    pub(crate) fn put_text(&self, text: &str, len: i32) -> Result<(), Code> {
        let len = usize::try_from(len).ok().filter(|&len| len > 0).ok_or(Code::INVALID_VALUE)?;
        if self.0.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        let kept = text.len().min(len - 1);
        // SAFETY: the caller's buffer has `len` bytes.
        unsafe {
            self.0.copy_from(text.as_ptr(), kept);
            self.0.add(kept).write(0);
        }
        Ok(())
    }
}

/// What a caller gave us to read.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct In<T>(*const T);

impl<T: Copy> In<T> {
    /// The element at `index`.
    pub(crate) fn read(&self, index: usize) -> Result<T, Code> {
        if self.0.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: the caller of a driver function hands it arrays that are long enough.
        Ok(unsafe { self.0.add(index).read_unaligned() })
    }

    pub(crate) fn read_all(&self, count: usize) -> Result<Vec<T>, Code> {
        (0..count).map(|index| self.read(index)).collect()
    }

    pub(crate) fn is_null(&self) -> bool {
        self.0.is_null()
    }

    pub(crate) fn address(&self) -> *mut u8 {
        self.0.cast_mut().cast()
    }
}

impl In<u8> {
    /// The C string that is there.
    pub(crate) fn text(&self) -> Result<String, Code> {
        let mut bytes = Vec::new();
        while let byte @ 1.. = self.read(bytes.len())? {
            bytes.push(byte);
        }
        String::from_utf8(bytes).map_err(|_| Code::INVALID_VALUE)
    }
}
