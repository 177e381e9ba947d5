//! The kernels of the suite, in every language of a backend that runs it. The stand-in for CUDA's driver runs the Rust sources
//! under the names that it finds in the compiled ones.

use chare_device::{Each, In, InOut, Launch, Maybe, Out, kernel};

kernel! {
    pub(crate) const FILL: fn fill(out: Out<u32>, value: u32) {
        rust: |_: &Launch, (out, value): (&mut [u32], u32)| out.fill(value),
        cuda: "KERNEL fill(Out<u32> out, u32 value, Grid grid) {
            u32 i = blockIdx.x * blockDim.x + threadIdx.x;
            if (i < out.len) out[i] = value;
        }",
        wgsl: "
            struct Arguments { grid: vec3<u32>, present: u32, @align(16) value: u32 }
            @group(0) @binding(0) var<storage, read_write> out: array<u32>;
            @group(0) @binding(1) var<uniform> arguments: Arguments;
            @compute @workgroup_size(64) fn fill(@builtin(global_invocation_id) at: vec3<u32>) {
                if at.x < arrayLength(&out) { out[at.x] = arguments.value; }
            }",
    }
}

kernel! {
    pub(crate) const ADD: fn add(buffer: InOut<u32>, value: u32) {
        rust: |_: &Launch, (buffer, value): (&mut [u32], u32)| buffer.iter_mut().for_each(|x| *x += value),
        cuda: "KERNEL add(InOut<u32> buffer, u32 value, Grid grid) {
            u32 i = blockIdx.x * blockDim.x + threadIdx.x;
            if (i < buffer.len) buffer[i] += value;
        }",
        wgsl: "
            struct Arguments { grid: vec3<u32>, present: u32, @align(16) value: u32 }
            @group(0) @binding(0) var<storage, read_write> buffer: array<u32>;
            @group(0) @binding(1) var<uniform> arguments: Arguments;
            @compute @workgroup_size(64) fn add(@builtin(global_invocation_id) at: vec3<u32>) {
                if at.x < arrayLength(&buffer) { buffer[at.x] += arguments.value; }
            }",
    }
}

kernel! {
    /// Adds one to each element, after so many rounds of something that no compiler sees through: no square leaves 5 when it is divided by
    /// 8. In WGSL by the thousand, for llvmpipe may leave a loop after 65535 rounds.
    pub(crate) const LATE: fn late(buffer: InOut<u32>, rounds: u32) {
        rust: |_: &Launch, (buffer, rounds): (&mut [u32], u32)| {
            let mut mixed = 1_u32;
            for _ in 0..rounds {
                mixed = std::hint::black_box(mixed.wrapping_mul(1664525).wrapping_add(1013904223));
            }
            buffer.iter_mut().for_each(|x| *x += u32::from(mixed.wrapping_mul(mixed) & 7 != 5));
        },
        cuda: "KERNEL late(InOut<u32> buffer, u32 rounds, Grid grid) {
            if (blockIdx.x > 0 || threadIdx.x > 0) return;
            u32 mixed = 1;
            for (u32 round = 0; round < rounds; round++) mixed = mixed * 1664525 + 1013904223;
            for (u64 at = 0; at < buffer.len; at++) buffer[at] += (mixed * mixed & 7) != 5 ? 1 : 0;
        }",
        wgsl: "
            struct Arguments { grid: vec3<u32>, present: u32, @align(16) rounds: u32 }
            @group(0) @binding(0) var<storage, read_write> buffer: array<u32>;
            @group(0) @binding(1) var<uniform> arguments: Arguments;
            @compute @workgroup_size(1) fn late() {
                var mixed = 1u;
                for (var thousands = 0u; thousands <= arguments.rounds / 32768u; thousands++) {
                    for (var round = 0u; round < 32768u; round++) { mixed = mixed * 1664525u + 1013904223u; }
                }
                let added = select(0u, 1u, ((mixed * mixed) & 7u) != 5u);
                for (var at = 0u; at < arrayLength(&buffer); at++) { buffer[at] += added; }
            }",
    }
}

kernel! {
    pub(crate) const COPY: fn copy(source: In<u32>, out: Out<u32>) {
        rust: |_: &Launch, (source, out): (&[u32], &mut [u32])| out.copy_from_slice(source),
        cuda: "KERNEL copy(In<u32> source, Out<u32> out, Grid grid) {
            u32 i = blockIdx.x * blockDim.x + threadIdx.x;
            if (i < out.len) out[i] = source[i];
        }",
        wgsl: "
            @group(0) @binding(0) var<storage, read> source: array<u32>;
            @group(0) @binding(1) var<storage, read_write> out: array<u32>;
            @compute @workgroup_size(64) fn copy(@builtin(global_invocation_id) at: vec3<u32>) {
                if at.x < arrayLength(&out) { out[at.x] = source[at.x]; }
            }",
    }
}

kernel! {
    /// Adds up the first elements of the parts that are there, and counts these parts.
    pub(crate) const GATHER: fn gather(parts: Each<Maybe<In<u32>>, 3>, outs: Each<Out<u32>, 2>) {
        rust: |_: &Launch, (parts, [sum, count]): ([Option<&[u32]>; 3], [&mut [u32]; 2])| {
            sum[0] = parts.iter().flatten().map(|part| part[0]).sum();
            count[0] = parts.iter().flatten().count() as u32;
        },
        cuda: "KERNEL gather(Each<Maybe<In<u32>>, 3> parts, Each<Out<u32>, 2> outs, Grid grid) {
            if (blockIdx.x > 0 || threadIdx.x > 0) return;
            u32 sum = 0, count = 0;
            for (int i = 0; i < 3; i++) {
                if (!parts[i]) continue;
                sum += parts[i][0];
                count++;
            }
            outs[0][0] = sum;
            outs[1][0] = count;
        }",
        wgsl: "
            struct Arguments { grid: vec3<u32>, present: u32 }
            @group(0) @binding(0) var<storage, read> a: array<u32>;
            @group(0) @binding(1) var<storage, read> b: array<u32>;
            @group(0) @binding(2) var<storage, read> c: array<u32>;
            @group(0) @binding(3) var<storage, read_write> sum: array<u32>;
            @group(0) @binding(4) var<storage, read_write> count: array<u32>;
            @group(0) @binding(5) var<uniform> arguments: Arguments;
            @compute @workgroup_size(1) fn gather() {
                let there = arguments.present;
                sum[0] = select(0u, a[0], (there & 1u) != 0u) + select(0u, b[0], (there & 2u) != 0u)
                    + select(0u, c[0], (there & 4u) != 0u);
                count[0] = countOneBits(there & 7u);
            }",
    }
}

kernel! {
    pub(crate) const BOTH: fn both(a: Out<u32>, b: Out<u32>) {
        rust: |_: &Launch, (a, b): (&mut [u32], &mut [u32])| {
            a.fill(8);
            b.fill(9);
        },
        cuda: "KERNEL both(Out<u32> a, Out<u32> b, Grid grid) {
            u32 i = blockIdx.x * blockDim.x + threadIdx.x;
            if (i > 0) return;
            for (u64 at = 0; at < a.len; at++) a[at] = 8;
            for (u64 at = 0; at < b.len; at++) b[at] = 9;
        }",
        wgsl: "
            @group(0) @binding(0) var<storage, read_write> a: array<u32>;
            @group(0) @binding(1) var<storage, read_write> b: array<u32>;
            @compute @workgroup_size(1) fn both() {
                for (var i = 0u; i < arrayLength(&a); i++) {
                    a[i] = 8u;
                    b[i] = 9u;
                }
            }",
    }
}

kernel! {
    /// Fails: in Rust by a panic, in WGSL by wanting a larger buffer than it is given, on CUDA by wanting groups of seven blocks
    /// in a grid of one, which those from Hopper on know, or, of a stand-in, by other parameters than that knows.
    pub(crate) const PANIC: fn panic(buffer: InOut<u32>) {
        rust: |_: &Launch, (buffer,): (&mut [u32],)| panic!("no more {}", buffer.len()),
        cuda: "
            #if __CUDA_ARCH__ >= 900
            KERNEL __cluster_dims__(7, 1, 1) panic(InOut<u32> buffer, Grid grid);
            #endif
            KERNEL panic(InOut<u32> buffer, Grid grid) { buffer[0] = 1; }",
        wgsl: "
            @group(0) @binding(0) var<storage, read_write> buffer: array<u32, 1000000>;
            @compute @workgroup_size(1) fn panic() { buffer[0] = 1u; }",
    }
}
