// Adding to chunks: see mod.rs. A workgroup for each chunk of 1024 elements. What a `Number` is stands before this text.

struct Arguments {
    grid: vec3<u32>,
    present: u32,
}

@group(0) @binding(0) var<storage, read_write> sums: array<Number>;
@group(0) @binding(1) var<storage, read> offsets: array<Number>;
@group(0) @binding(2) var<uniform> arguments: Arguments;

fn add(chunk: u32, number: u32) {
    // An empty buffer is not there.
    let len = select(0u, arrayLength(&sums), (arguments.present & 1u) != 0u);
    let end = min((chunk + 1u) * 1024u, len);
    for (var i = chunk * 1024u + number; i < end; i += 256u) {
        sums[i] += offsets[chunk];
    }
}

@compute @workgroup_size(256)
fn add_offsets_u32(@builtin(workgroup_id) chunk: vec3<u32>, @builtin(local_invocation_index) number: u32) {
    add(chunk.x, number);
}

@compute @workgroup_size(256)
fn add_offsets_f32(@builtin(workgroup_id) chunk: vec3<u32>, @builtin(local_invocation_index) number: u32) {
    add(chunk.x, number);
}
