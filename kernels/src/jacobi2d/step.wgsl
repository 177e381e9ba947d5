// One Jacobi step: see step.rs. An invocation per owned cell; x of the grid runs along y of the block, where cells are neighbours in
// memory.

struct Arguments {
    grid: vec3<u32>,
    present: u32,
    @align(16) dims: vec2<u32>,
}

@group(0) @binding(0) var<storage, read> u: array<f32>;
@group(0) @binding(1) var<storage, read_write> unew: array<f32>;
// The bits of an absolute value, in whose order NaN is above all.
@group(0) @binding(2) var<storage, read_write> residual: array<atomic<u32>>;
@group(0) @binding(3) var<uniform> arguments: Arguments;

var<workgroup> largest: atomic<u32>;

@compute @workgroup_size(32, 8)
fn jacobi2d_f32(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let dims = arguments.dims;
    if id.x < dims.y && id.y < dims.x {
        let row = dims.y + 2u;
        let at = (id.y + 1u) * row + id.x + 1u;
        let mean = (u[at - row] + u[at + row] + u[at - 1u] + u[at + 1u]) * 0.25;
        atomicMax(&largest, bitcast<u32>(mean - u[at]) & 0x7fffffffu);
        unew[at] = mean;
    }
    workgroupBarrier();
    if local == 0u {
        atomicMax(&residual[0], atomicLoad(&largest));
    }
}
