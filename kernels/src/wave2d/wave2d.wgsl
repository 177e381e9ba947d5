// One step of the wave equation: see mod.rs. An invocation per owned cell; x of the grid runs along y of the block, where cells are
// neighbours in memory.

struct Arguments {
    grid: vec3<u32>,
    present: u32,
    @align(16) dims: vec2<u32>,
    @align(16) courant_squared: f32,
}

@group(0) @binding(0) var<storage, read> u: array<f32>;
@group(0) @binding(1) var<storage, read_write> next: array<f32>;
@group(0) @binding(2) var<uniform> arguments: Arguments;

@compute @workgroup_size(32, 8)
fn wave2d_f32(@builtin(global_invocation_id) id: vec3<u32>) {
    let dims = arguments.dims;
    if id.x >= dims.y || id.y >= dims.x {
        return;
    }
    let row = dims.y + 2u;
    let at = (id.y + 1u) * row + id.x + 1u;
    let curvature = u[at - row] + u[at + row] + u[at - 1u] + u[at + 1u] - 4.0 * u[at];
    next[at] = 2.0 * u[at] - next[at] + arguments.courant_squared * curvature;
}
