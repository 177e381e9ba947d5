//! The declaration of a kernel with all its sources, and what is checked of them when the program compiles.
//!
//! The parameters are written down twice, in Rust and in CUDA C, and the two must agree. So they are spelled alike in
//! both, and compared as text.

/// Declares a [`Kernel`](crate::Kernel) as a constant, with a source in each language that it is written in.
///
/// ```
/// use chare_device::{In, InOut, Launch, kernel};
///
/// kernel! {
///     /// Adds `a` times `x` to `y`.
///     pub const AXPY: fn axpy(a: f32, x: In<f32>, y: InOut<f32>) {
///         rust: |_: &Launch, (a, x, y): (f32, &[f32], &mut [f32])| {
///             y.iter_mut().zip(x).for_each(|(y, x)| *y += a * x);
///         },
///         cuda: "KERNEL axpy(f32 a, In<f32> x, InOut<f32> y, Grid grid) {
///             u32 i = blockIdx.x * blockDim.x + threadIdx.x;
///             if (i < grid.x) y[i] += a * x[i];
///         }",
///         wgsl: "
///             @group(0) @binding(0) var<storage, read> x: array<f32>;
///             @group(0) @binding(1) var<storage, read_write> y: array<f32>;
///             struct Arguments { grid: vec3<u32>, present: u32, @align(16) a: f32 }
///             @group(0) @binding(2) var<uniform> arguments: Arguments;
///
///             @compute @workgroup_size(64)
///             fn axpy(@builtin(global_invocation_id) at: vec3<u32>) {
///                 if at.x < arguments.grid.x { y[at.x] += arguments.a * x[at.x]; }
///             }",
///     }
/// }
/// assert_eq!(AXPY.name(), "axpy");
/// ```
///
/// The sources come from files by `include_str!`; one file may hold several kernels. `cuda`, `ptx` (the same, compiled) and `wgsl` may be left out:
/// a launch on a device that wants what there is not is an error that says what there is. The name of the kernel is that of
/// the function in each source. Parameters are bound by the same rules for all kernels:
///
/// | parameter | Rust | CUDA C | WGSL |
/// |---|---|---|---|
/// | `x: In<T>` | `&[T]` | `In<T> x` | the next binding, `var<storage, read>` |
/// | `x: Out<T>`, `InOut<T>`, `Zeroed<T>` | `&mut [T]` | `Out<T> x`, .. | the next binding, `var<storage, read_write>` |
/// | `x: Maybe<B>` | `Option` of the view | `Maybe<B> x`: false if absent | as `B`; one bit of `present` |
/// | `x: Each<B, N>` | array of views | `Each<B, N> x` | `N` bindings |
/// | `x: f32`, .. | itself | `f32 x` | a member of the uniform |
/// | `x: [T; N]` | itself | `Array<T, N> x` | a member of the uniform |
/// | | `Launch::grid` | `Grid grid`, the last | `grid`, the first member of the uniform |
///
/// **CUDA C.** Each source is compiled with [`CUDA_PRELUDE`](crate::CUDA_PRELUDE) before it, which declares these types;
/// a buffer is a pointer `data` and a number of elements `len`, and can be indexed. The function is `KERNEL name(..)`, with the parameters spelled
/// as here, in the same order, and `Grid grid` after them; this is checked when the program compiles. A scalar of a type
/// of your own has a C type of that name and layout in the source. There is one thread, at least, for each element of
/// the grid; the runtime chooses the blocks, of multiples of 32 and at most 1024 threads.
///
/// **WGSL.** Everything is in group 0. Buffers take bindings from 0 in the order of the parameters. After them comes one uniform with
/// `grid: vec3<u32>, present: u32` and the scalars in their order, each at the next multiple of 16 bytes (`@align(16)`); an
/// array of more than 4 numbers is an `array<vec4<T>, ..>` there. Bit `i` of `present` is set if the buffer of
/// binding `i` is there and has elements; else it is bound to a few bytes of no meaning. The number of elements
/// is `arrayLength`. The runtime divides the grid by the entry point's workgroup size, rounding up. That there is a function of the
/// kernel's name is checked when the program compiles; the rest when it is loaded. Scalars and elements have 32 bits, or 64 where the
/// adapter can. More workgroups along an axis than the device allows (65535 on most) are a fault that says so.
///
/// What does not agree does not compile:
///
/// ```compile_fail,E0080
/// # use chare_device::{In, Launch, Out, kernel};
/// kernel! {
///     const DOUBLE: fn double(x: In<f32>, y: Out<f32>) {
///         rust: |_: &Launch, (x, y): (&[f32], &mut [f32])| y[0] = 2.0 * x[0],
///         cuda: "KERNEL double(In<f32> x, InOut<f32> y, Grid grid) { y[0] = 2 * x[0]; }",
///     }
/// }
/// # fn main() { DOUBLE.name(); }
/// ```
#[macro_export]
macro_rules! kernel {
    (
        $(#[$attribute:meta])*
        $visibility:vis const $CONST:ident: fn $name:ident($($parameter:ident: $Type:ty),+ $(,)?) {
            rust: $rust:expr
            $(, cuda: $cuda:expr)?
            $(, ptx: $ptx:expr)?
            $(, wgsl: $wgsl:expr)?
            $(,)?
        }
    ) => {
        $(#[$attribute])*
        $visibility const $CONST: $crate::Kernel<($($Type,)+)> = {
            #[allow(dead_code)]
            const PARAMETERS: &[(&str, &str)] = &[$((stringify!($Type), stringify!($parameter))),+];
            let kernel = $crate::Kernel::<($($Type,)+)>::new(stringify!($name), $rust);
            $(
                const CUDA: &str = $cuda;
                assert!(
                    $crate::__cuda_declares(CUDA, stringify!($name), PARAMETERS),
                    "the CUDA C source has no function `KERNEL <name>(<parameters>, Grid grid)` with the kernel's name and \
                     its parameters, spelled as in the declaration (`[T; N]` as `Array<T, N>`)"
                );
                let kernel = kernel.with_cuda(CUDA);
            )?
            $(let kernel = kernel.with_ptx($ptx);)?
            $(
                const WGSL: &str = $wgsl;
                assert!(
                    $crate::__wgsl_declares(WGSL, stringify!($name)),
                    "the WGSL source has no function `fn <name>(..)` with the kernel's name"
                );
                let kernel = kernel.with_wgsl(WGSL);
            )?
            kernel
        };
    };
}

/// What the CUDA C source of a kernel is compiled after: the types of its parameters.
pub const CUDA_PRELUDE: &str = include_str!("chare.cuh");

/// Whether a source has `KERNEL name(parameters, Grid grid)`. The parameters are types and names as in Rust.
#[doc(hidden)]
pub const fn cuda_declares(source: &str, name: &str, parameters: &[(&str, &str)]) -> bool {
    let source = source.as_bytes();
    let mut start = 0;
    while start < source.len() {
        if let Some(at) = match_call(source, start, b"KERNEL", name.as_bytes())
            && let Some(at) = match_parameters(source, at, parameters)
            && match_text(source, at, b"Grid grid)").is_some()
        {
            return true;
        }
        start += 1;
    }
    false
}

/// Whether a source has `fn name(`.
#[doc(hidden)]
pub const fn wgsl_declares(source: &str, name: &str) -> bool {
    let source = source.as_bytes();
    let mut start = 0;
    while start < source.len() {
        if match_call(source, start, b"fn", name.as_bytes()).is_some() {
            return true;
        }
        start += 1;
    }
    false
}

/// Where it goes on after `keyword name(`, if that is what stands at `at`.
const fn match_call(source: &[u8], at: usize, keyword: &[u8], name: &[u8]) -> Option<usize> {
    if at > 0 && is_word(source[at - 1]) {
        return None;
    }
    let Some(at) = match_text(source, at, keyword) else { return None };
    if at >= source.len() || !source[at].is_ascii_whitespace() {
        return None;
    }
    let Some(at) = match_text(source, at, name) else { return None };
    match_text(source, at, b"(")
}

/// Where it goes on after the parameters and a comma after each.
const fn match_parameters(source: &[u8], mut at: usize, parameters: &[(&str, &str)]) -> Option<usize> {
    let mut index = 0;
    while index < parameters.len() {
        let (type_name, name) = parameters[index];
        let Some(end) = match_type(source, at, type_name.as_bytes()) else { return None };
        let Some(end) = match_text(source, end, name.as_bytes()) else { return None };
        let Some(end) = match_text(source, end, b",") else { return None };
        at = end;
        index += 1;
    }
    Some(at)
}

/// Where it goes on after a Rust type as it is spelled in C.
const fn match_type(source: &[u8], mut at: usize, type_name: &[u8]) -> Option<usize> {
    let mut index = 0;
    while index < type_name.len() {
        let spelled: &[u8] = match &type_name[index] {
            b'[' => b"Array<",
            b';' => b",",
            b']' => b">",
            other => std::slice::from_ref(other),
        };
        let Some(end) = match_text(source, at, spelled) else { return None };
        at = end;
        index += 1;
    }
    Some(at)
}

/// Where it goes on after a text, in which blanks mean nothing.
const fn match_text(source: &[u8], mut at: usize, text: &[u8]) -> Option<usize> {
    let mut index = 0;
    while index < text.len() {
        if text[index].is_ascii_whitespace() {
            index += 1;
        } else if at >= source.len() {
            return None;
        } else if source[at].is_ascii_whitespace() {
            at += 1;
        } else if source[at] == text[index] {
            at += 1;
            index += 1;
        } else {
            return None;
        }
    }
    Some(at)
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMETERS: &[(&str, &str)] =
        &[("In < f32 >", "u"), ("[u32; 3]", "dims"), ("Each<Maybe<Out<f32>>, 6>", "faces")];

    #[test]
    fn parameters_must_be_spelled_alike() {
        let declares = |source: &str| cuda_declares(source, "sweep", PARAMETERS);
        let right = "template <class T> __device__ void sweep(In<T> u);\n\
                     KERNEL sweep(In<f32> u, Array<u32, 3> dims,\n    Each<Maybe<Out<f32>>, 6> faces, Grid grid) {}";
        assert!(declares(right));
        for (there, instead) in [
            ("KERNEL sweep", "KERNEL sweep2"),
            ("KERNEL sweep", "KERNELsweep"),
            ("KERNEL sweep", "MYKERNEL sweep"),
            ("In<f32> u", "In<f64> u"),
            ("In<f32> u", "InOut<f32> u"),
            ("In<f32> u", "In<f32> v"),
            ("dims", "dim"),
            ("u32, 3", "u32, 4"),
            (", Grid grid", ""),
            (", Grid grid", ", Grid grid, u32 more"),
        ] {
            let wrong = right.replace(there, instead);
            assert!(wrong != right && !declares(&wrong), "{wrong}");
        }
        assert!(wgsl_declares("@compute fn sweep (at: u32) {}", "sweep"));
        assert!(!wgsl_declares("fn sweeps() {} fn my_sweep() {} // sweep()", "sweep"));
    }
}
