// y = a x + y: see mod.rs. Invocations go on by the size of the grid.

struct Arguments {
    grid: vec3<u32>,
    present: u32,
    @align(16) a: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> arguments: Arguments;

@compute @workgroup_size(256)
fn axpy_f32(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < arrayLength(&y); i += groups.x * 256u) {
        y[i] += arguments.a * x[i];
    }
}
