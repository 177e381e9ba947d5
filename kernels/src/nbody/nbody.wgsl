// Gravity: see mod.rs. An invocation a target. A workgroup goes over the sources in tiles, of which each invocation loads one body.

struct Arguments {
    grid: vec3<u32>,
    present: u32,
    @align(16) softening_squared: f32,
}

@group(0) @binding(0) var<storage, read> targets: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> sources: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> accelerations: array<vec4<f32>>;
@group(0) @binding(3) var<uniform> arguments: Arguments;

var<workgroup> tile: array<vec4<f32>, 128>;

@compute @workgroup_size(128)
fn nbody_f32(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) number: u32) {
    // Empty buffers are not there.
    let targets_len = select(0u, arrayLength(&targets), (arguments.present & 1u) != 0u);
    let sources_len = select(0u, arrayLength(&sources), (arguments.present & 2u) != 0u);
    let is_there = id.x < targets_len;
    var at = vec3<f32>();
    if is_there {
        at = targets[id.x].xyz;
    }
    var sum = vec3<f32>();
    for (var start = 0u; start < sources_len; start += 128u) {
        let count = min(128u, sources_len - start);
        if number < count {
            tile[number] = sources[start + number];
        }
        workgroupBarrier();
        for (var i = 0u; i < count; i++) {
            let away = tile[i].xyz - at;
            let inverse = 1.0 / sqrt(dot(away, away) + arguments.softening_squared);
            sum += tile[i].w * inverse * inverse * inverse * away;
        }
        workgroupBarrier();
    }
    if is_there {
        accelerations[id.x] += vec4<f32>(sum, 0.0);
    }
}
