// Reductions of chunks: see mod.rs. A workgroup for each chunk of 4096 elements, in the order that mod.rs says: an invocation is a
// lane.

struct Arguments {
    grid: vec3<u32>,
    present: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> partial: array<f32>;
@group(0) @binding(2) var<uniform> arguments: Arguments;

var<workgroup> lanes: array<f32, 256>;

// Where a chunk ends. An empty buffer is not there.
fn end(chunk: u32) -> u32 {
    let len = select(0u, arrayLength(&x), (arguments.present & 1u) != 0u);
    return min((chunk + 1u) * 4096u, len);
}

fn infinity() -> f32 {
    // A constant expression must be finite.
    var bits = 0x7f800000u;
    return bitcast<f32>(bits);
}

@compute @workgroup_size(256)
fn sum_f32(@builtin(workgroup_id) chunk: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    var sum = 0.0;
    for (var i = chunk.x * 4096u + lane; i < end(chunk.x); i += 256u) {
        sum += x[i];
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

// The smaller or the larger of two.
fn chosen(a: f32, b: f32, is_least: bool) -> f32 {
    return select(max(a, b), min(a, b), is_least);
}

fn extreme(chunk: u32, lane: u32, is_least: bool) {
    var found = select(-infinity(), infinity(), is_least);
    for (var i = chunk * 4096u + lane; i < end(chunk); i += 256u) {
        found = chosen(found, x[i], is_least);
    }
    lanes[lane] = found;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            lanes[lane] = chosen(lanes[lane], lanes[lane + half], is_least);
        }
    }
    if lane == 0u {
        partial[chunk] = lanes[0];
    }
}

@compute @workgroup_size(256)
fn min_f32(@builtin(workgroup_id) chunk: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    extreme(chunk.x, lane, true);
}

@compute @workgroup_size(256)
fn max_f32(@builtin(workgroup_id) chunk: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    extreme(chunk.x, lane, false);
}
