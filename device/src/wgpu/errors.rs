//! Errors of wgpu as values: without a scope, or with nobody asked, wgpu would panic.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Calls `body`, and returns the first error of wgpu that it has caused.
pub(super) fn scoped<R>(device: &wgpu::Device, body: impl FnOnce() -> R) -> Result<R, String> {
    use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
    let [outer, middle, inner] =
        [OutOfMemory, Validation, Internal].map(|kind| device.push_error_scope(kind));
    let value = body();
    let mut errors = [inner, middle, outer].map(|scope| now(scope.pop())).into_iter().flatten();
    match errors.next() {
        Some(error) => Err(text(&error)),
        None => Ok(value),
    }
}

/// What an error of wgpu says, without the name of the function of wgpu that it was found in.
pub(super) fn text(error: &wgpu::Error) -> String {
    let (wgpu::Error::Validation { source, .. } | wgpu::Error::Internal { source, .. }) = error else {
        return "the device is out of memory".to_owned();
    };
    let mut text = String::new();
    let mut cause = source.source().or(Some(&**source));
    while let Some(error) = cause {
        let words = error.to_string();
        // Some say what their cause says.
        if !text.contains(words.trim()) {
            let between = if text.is_empty() { "" } else { ": " };
            text = format!("{text}{between}{}", words.trim());
        }
        cause = error.source();
    }
    text
}

/// The value of a future of wgpu. Outside of browsers these are ready when they are made.
pub(super) fn now<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::yield_now(),
        }
    }
}
