// Dot products of chunks: see mod.rs. A workgroup for each chunk of 4096 elements; an invocation is a lane.

struct Arguments {
    grid: vec3<u32>,
    present: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> y: array<f32>;
@group(0) @binding(2) var<storage, read_write> partial: array<f32>;
@group(0) @binding(3) var<uniform> arguments: Arguments;

var<workgroup> lanes: array<f32, 256>;

@compute @workgroup_size(256)
fn dot_f32(@builtin(workgroup_id) chunk: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // An empty buffer is not there.
    let len = select(0u, arrayLength(&x), (arguments.present & 1u) != 0u);
    let end = min((chunk.x + 1u) * 4096u, len);
    var sum = 0.0;
    for (var i = chunk.x * 4096u + lane; i < end; i += 256u) {
        sum += x[i] * y[i];
    }
    lanes[lane] = sum;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            lanes[lane] += lanes[lane + half];
        }
    }
    if lane == 0u {
        partial[chunk.x] = lanes[0];
    }
}
