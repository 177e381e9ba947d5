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
/// the grid; the runtime chooses the blocks, of multiples of 32 and at most 1024 threads, unless the kernel has a block shape.
///
/// **WGSL.** Everything is in group 0. Buffers take bindings from 0 in the order of the parameters. After them comes one uniform with
/// `grid: vec3<u32>, present: u32` and the scalars in their order, each at the next multiple of 16 bytes (`@align(16)`); an
/// array of more than 4 numbers is an `array<vec4<T>, ..>` there. Bit `i` of `present` is set if the buffer of
/// binding `i` is there and has elements; else it is bound to a few bytes of no meaning. The number of elements
/// is `arrayLength`. The runtime divides the grid by the entry point's workgroup size, rounding up. That there is a function of the
/// kernel's name is checked when the program compiles; the rest when it is loaded. Scalars and elements have 32 bits, or 64 where the
/// adapter can. More workgroups along an axis than the device allows (65535 on most) are a fault that says so.
///
/// What NVRTC is to be told follows the source: `cuda_options: &["--use_fast_math"]`. What it compiles is kept on disk, unless the source
/// includes other files, which may change. Code that is compiled already may stand beside it or in its place:
/// `ptx: ".."`, and `cubins: &[(Capability(9, 0), include_bytes!(".."))]`; a GPU takes the cubin that is for it, else PTX, else CUDA C.
/// `shared_bytes: N`, before `rust`, gives each block so much dynamic shared memory (`extern __shared__`), of which more than 48 KiB can be had
/// in this way only; elsewhere it says nothing.
///
/// **Block shape.** Threads that work together, by shared memory and barriers, must know how many they are. `block: [x, y, z]`, before
/// `rust`, says it: 32 to 1024 threads, a multiple of 32, at most 64 along z. Then blocks are exactly so large on every device, and each source says the same in
/// numbers, which is checked when the program compiles. Axes at the end that are 1 may be left out in the sources:
///
/// | declaration | CUDA C | WGSL |
/// |---|---|---|
/// | `block: [256, 1, 1]` | `KERNEL BLOCK(256) name(..)` | `@compute @workgroup_size(256) fn name(..)` |
/// | `block: [16, 16, 1]` | `KERNEL BLOCK(16, 16) name(..)` | `@compute @workgroup_size(16, 16) fn name(..)` |
///
/// A grid counts threads all the same; as many blocks run as cover it, and each with all of its threads, so those beyond the grid
/// take part in barriers too. Where it is blocks that one thinks in, [`Kernel::blocks`](crate::Kernel::blocks) gives the grid of so many. The Rust source sees no
/// threads: it does what all blocks do.
///
/// ```
/// use chare_device::{DeviceSpec, Devices, HostMode, In, Launch, Out, kernel};
///
/// kernel! {
///     /// The largest of each 64 numbers.
///     const LARGEST: fn largest(x: In<u32>, most: Out<u32>) {
///         block: [64, 1, 1],
///         rust: |_: &Launch, (x, most): (&[u32], &mut [u32])| {
///             for (most, x) in most.iter_mut().zip(x.chunks(64)) {
///                 *most = x.iter().copied().max().unwrap_or(0);
///             }
///         },
///         cuda: "KERNEL BLOCK(64) largest(In<u32> x, Out<u32> most, Grid grid) {
///             __shared__ u32 all[64];
///             u64 at = u64(blockIdx.x) * 64 + threadIdx.x;
///             all[threadIdx.x] = at < x.len ? x[at] : 0;
///             for (u32 half = 32; half > 0; half /= 2) {
///                 __syncthreads();
///                 if (threadIdx.x < half) all[threadIdx.x] = max(all[threadIdx.x], all[threadIdx.x + half]);
///             }
///             if (threadIdx.x == 0) most[blockIdx.x] = all[0];
///         }",
///     }
/// }
/// let devices = Devices::open(&DeviceSpec::default(), HostMode::Inline)?;
/// let account = devices.get(0).account("me");
/// let x = account.upload((0..100).collect())?;
/// let mut most = account.alloc::<u32>(2)?;
/// account.launch(&LARGEST, LARGEST.blocks(2), (&x, &mut most))?;
/// assert_eq!(account.download(&most)?.wait()?, [63, 99]);
/// # Ok::<(), chare_device::DeviceError>(())
/// ```
///
/// What does not agree does not compile:
///
/// ```compile_fail,E0080
/// # use chare_device::{In, Launch, Out, kernel};
/// kernel! {
///     const TWICE: fn twice(x: In<f32>, y: Out<f32>) {
///         rust: |_: &Launch, (x, y): (&[f32], &mut [f32])| y[0] = 2.0 * x[0],
///         cuda: "KERNEL twice(In<f32> x, InOut<f32> y, Grid grid) { y[0] = 2 * x[0]; }",
///     }
/// }
/// # fn main() { TWICE.name(); }
/// ```
/// ```compile_fail,E0080
/// # use chare_device::{In, Launch, Out, kernel};
/// kernel! {
///     const TILED: fn tiled(x: Out<f32>) {
///         block: [16, 16, 1],
///         rust: |_: &Launch, (x,): (&mut [f32],)| x.fill(0.0),
///         wgsl: "
///             @group(0) @binding(0) var<storage, read_write> x: array<f32>;
///             @compute @workgroup_size(8, 8) fn tiled() { x[0] = 0.0; }",
///     }
/// }
/// # fn main() { TILED.name(); }
/// ```
#[macro_export]
macro_rules! kernel {
    (
        $(#[$attribute:meta])*
        $visibility:vis const $CONST:ident: fn $name:ident($($parameter:ident: $Type:ty),+ $(,)?) {
            $(block: $block:expr,)?
            $(shared_bytes: $shared_bytes:expr,)?
            rust: $rust:expr
            $(, cuda: $cuda:expr)?
            $(, cuda_options: $cuda_options:expr)?
            $(, ptx: $ptx:expr)?
            $(, cubins: $cubins:expr)?
            $(, wgsl: $wgsl:expr)?
            $(,)?
        }
    ) => {
        $(#[$attribute])*
        $visibility const $CONST: $crate::Kernel<($($Type,)+)> = {
            const __KERNEL: $crate::Kernel<($($Type,)+)> = {
                #[allow(dead_code)]
                const PARAMETERS: &[(&str, &str)] = &[$((stringify!($Type), stringify!($parameter))),+];
                #[allow(dead_code)]
                const BLOCK: Option<[u32; 3]> = $crate::__block(&[$($block)?]);
                let kernel = $crate::Kernel::<($($Type,)+)>::new(stringify!($name), $rust);
                let kernel = match BLOCK {
                    Some(block) => kernel.with_block(block),
                    None => kernel,
                };
                $(
                    const CUDA: &str = $cuda;
                    assert!(
                        $crate::__cuda_declares(CUDA, stringify!($name), PARAMETERS, BLOCK),
                        "the CUDA C source has no function `KERNEL <name>(<parameters>, Grid grid)` with the kernel's name and \
                         its parameters, spelled as in the declaration (`[T; N]` as `Array<T, N>`); with a block shape it is \
                         `KERNEL BLOCK(<x>, <y>, <z>) <name>(..)`, with the same numbers"
                    );
                    let kernel = kernel.with_cuda(CUDA);
                )?
                $(let kernel = kernel.with_shared_bytes($shared_bytes);)?
                $(let kernel = kernel.with_cuda_options($cuda_options);)?
                $(let kernel = kernel.with_ptx($ptx);)?
                $(let kernel = kernel.with_cubins($cubins);)?
                $(
                    const WGSL: &str = $wgsl;
                    assert!(
                        $crate::__wgsl_declares(WGSL, stringify!($name), BLOCK),
                        "the WGSL source has no function `fn <name>(..)` with the kernel's name; with a block shape it is \
                         `@compute @workgroup_size(<x>, <y>, <z>) fn <name>(..)`, with the same numbers"
                    );
                    let kernel = kernel.with_wgsl(WGSL);
                )?
                kernel
            };
            #[$crate::__linkme::distributed_slice($crate::__KERNELS)]
            #[linkme(crate = $crate::__linkme)]
            static ROW: $crate::__Declared = $crate::__Declared::of(&__KERNEL, ::core::module_path!());
            __KERNEL
        };
    };
}

/// What the CUDA C source of a kernel is compiled after: the types of its parameters.
pub const CUDA_PRELUDE: &str = include_str!("chare.cuh");

/// What is compiled for a CUDA C source: what the compiler says of a line is of the line in the source.
#[cfg(feature = "cuda")]
pub(crate) fn cuda_text(name: &str, source: &str) -> String {
    format!("{CUDA_PRELUDE}\n#line 1 \"{name}.cu\"\n{source}")
}

/// The block shape of a declaration, if it has one.
#[doc(hidden)]
pub const fn block(given: &[[u32; 3]]) -> Option<[u32; 3]> {
    match given {
        [] => None,
        [block, ..] => Some(*block),
    }
}

/// Fails unless every device may have blocks of this shape, made of whole warps.
pub(super) const fn check_block([x, y, z]: [u32; 3]) {
    assert!(x > 0 && y > 0 && z > 0, "a block shape has at least one thread along each axis");
    let threads = x as u64 * y as u64 * z as u64;
    assert!(threads <= 1024 && z <= 64, "a block has at most 1024 threads, and at most 64 along z");
    assert!(threads.is_multiple_of(32), "the threads of a block are a multiple of 32");
}

/// Whether a source has `KERNEL name(parameters, Grid grid)`, with `BLOCK(x, y, z)` before the name if there is a block shape. The
/// parameters are types and names as in Rust.
#[doc(hidden)]
pub const fn cuda_declares(
    source: &str,
    name: &str,
    parameters: &[(&str, &str)],
    block: Option<[u32; 3]>,
) -> bool {
    let source = source.as_bytes();
    let mut start = 0;
    while start < source.len() {
        let call = match block {
            None => match_call(source, start, b"KERNEL", name.as_bytes()),
            Some(block) => match_blocked(source, start, b"KERNEL BLOCK(", block, name.as_bytes()),
        };
        if let Some(at) = call
            && let Some(at) = match_parameters(source, at, parameters)
            && match_text(source, at, b"Grid grid)").is_some()
        {
            return true;
        }
        start += 1;
    }
    false
}

/// Whether a source has `fn name(`, with `@workgroup_size(x, y, z)` before it if there is a block shape.
#[doc(hidden)]
pub const fn wgsl_declares(source: &str, name: &str, block: Option<[u32; 3]>) -> bool {
    let source = source.as_bytes();
    let mut start = 0;
    while start < source.len() {
        let call = match block {
            None => match_call(source, start, b"fn", name.as_bytes()),
            Some(block) => match_workgroup(source, start, block, name.as_bytes()),
        };
        if call.is_some() {
            return true;
        }
        start += 1;
    }
    false
}

/// Where it goes on after `@workgroup_size(x, y, z) fn name(`; `@compute` may stand before `fn` too.
const fn match_workgroup(source: &[u8], at: usize, block: [u32; 3], name: &[u8]) -> Option<usize> {
    let Some(at) = match_text(source, at, b"@workgroup_size(") else { return None };
    let Some(mut at) = match_block(source, at, block) else { return None };
    if let Some(end) = match_text(source, at, b"@compute") {
        at = end;
    }
    while at < source.len() && source[at].is_ascii_whitespace() {
        at += 1;
    }
    match_call(source, at, b"fn", name)
}

/// Where it goes on after `keyword x, y, z) name(`. The keyword may hold blanks.
const fn match_blocked(
    source: &[u8],
    at: usize,
    keyword: &[u8],
    block: [u32; 3],
    name: &[u8],
) -> Option<usize> {
    if at > 0 && is_word(source[at - 1]) {
        return None;
    }
    let Some(at) = match_text(source, at, keyword) else { return None };
    let Some(at) = match_block(source, at, block) else { return None };
    let Some(at) = match_text(source, at, name) else { return None };
    match_text(source, at, b"(")
}

/// Where it goes on after `x, y, z)`, of which ones at the end may be missing.
const fn match_block(source: &[u8], mut at: usize, block: [u32; 3]) -> Option<usize> {
    let mut axis = 0;
    while axis < block.len() {
        let Some(end) = match_number(source, at, block[axis]) else { return None };
        at = end;
        axis += 1;
        if let Some(end) = match_text(source, at, b")") {
            while axis < block.len() {
                if block[axis] != 1 {
                    return None;
                }
                axis += 1;
            }
            return Some(end);
        }
        let Some(end) = match_text(source, at, b",") else { return None };
        at = end;
    }
    None
}

/// Where it goes on after a number in decimal digits.
const fn match_number(source: &[u8], mut at: usize, number: u32) -> Option<usize> {
    while at < source.len() && source[at].is_ascii_whitespace() {
        at += 1;
    }
    let (start, mut value) = (at, 0u64);
    while at < source.len() && source[at].is_ascii_digit() && value <= u32::MAX as u64 {
        value = 10 * value + (source[at] - b'0') as u64;
        at += 1;
    }
    if at == start || value != number as u64 { None } else { Some(at) }
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
        let declares = |source: &str| cuda_declares(source, "sweep", PARAMETERS, None);
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
        assert!(wgsl_declares("@compute fn sweep (at: u32) {}", "sweep", None));
        assert!(!wgsl_declares("fn sweeps() {} fn my_sweep() {} // sweep()", "sweep", None));
    }

    #[test]
    fn blocks_must_be_spelled_alike() {
        let cuda = |size: &str, block| {
            let source = format!("KERNEL BLOCK{size} sum(In<f32> x, Grid grid) {{}}");
            cuda_declares(&source, "sum", &[("In<f32>", "x")], block)
        };
        let wgsl = |size: &str, block| {
            let orders = [
                format!("@compute @workgroup_size{size} fn sum("),
                format!("@workgroup_size{size}\n@compute\nfn sum("),
            ];
            let [one, other] = orders.map(|source| wgsl_declares(&source, "sum", block));
            assert_eq!(one, other);
            one
        };
        for (size, block) in [
            ("(256)", [256, 1, 1]),
            ("(256, 1)", [256, 1, 1]),
            (" ( 8,8 , 4 )", [8, 8, 4]),
            ("(16, 2, 1)", [16, 2, 1]),
        ] {
            assert!(cuda(size, Some(block)) && wgsl(size, Some(block)) && !cuda(size, None), "{size}");
        }
        for size in [
            "(256, 2)",
            "(25)",
            "(2560)",
            "(THREADS)",
            "(256, 1, 1, 1)",
            "(256, 1, 1,)",
            "()",
            "(0x100)",
            "(99999999999)",
        ] {
            assert!(!cuda(size, Some([256, 1, 1])) && !wgsl(size, Some([256, 1, 1])), "{size}");
        }
        assert!(!cuda_declares(
            "KERNEL sum(In<f32> x, Grid grid)",
            "sum",
            &[("In<f32>", "x")],
            Some([32, 1, 1])
        ));
        assert!(!wgsl_declares("@compute @workgroup_size(32) fn sums(", "sum", Some([32, 1, 1])));
    }
}
