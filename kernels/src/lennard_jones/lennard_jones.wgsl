// Forces of a Lennard-Jones potential: see mod.rs. An invocation a target. A workgroup goes over the sources in tiles, of which each
// invocation loads one particle.

struct Arguments {
    grid: vec3<u32>,
    present: u32,
    @align(16) shift: vec3<f32>,
    // epsilon, sigma^2, cutoff^2, and the energy at the cutoff.
    @align(16) potential: vec4<f32>,
    @align(16) same: u32,
}

@group(0) @binding(0) var<storage, read> targets: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> sources: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> forces: array<vec4<f32>>;
@group(0) @binding(3) var<uniform> arguments: Arguments;

var<workgroup> tile: array<vec4<f32>, 64>;

@compute @workgroup_size(64)
fn lennard_jones_f32(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) number: u32) {
    // Empty buffers are not there.
    let targets_len = select(0u, arrayLength(&targets), (arguments.present & 1u) != 0u);
    let sources_len = select(0u, arrayLength(&sources), (arguments.present & 2u) != 0u);
    let potential = arguments.potential;
    let is_there = id.x < targets_len;
    var at = vec3<f32>();
    if is_there {
        at = targets[id.x].xyz;
    }
    var sum = vec4<f32>();
    for (var start = 0u; start < sources_len; start += 64u) {
        let count = min(64u, sources_len - start);
        if number < count {
            tile[number] = sources[start + number];
        }
        workgroupBarrier();
        for (var i = 0u; i < count; i++) {
            let away = at - (tile[i].xyz + arguments.shift);
            let squared = dot(away, away);
            if squared >= potential.z || (arguments.same != 0u && start + i == id.x) {
                continue;
            }
            let inverse = 1.0 / squared;
            let near = potential.y * inverse;
            let sixth = near * near * near;
            let factor = 24.0 * potential.x * (2.0 * sixth * sixth - sixth) * inverse;
            let energy = 0.5 * (4.0 * potential.x * (sixth * sixth - sixth) - potential.w);
            sum += vec4<f32>(factor * away, energy);
        }
        workgroupBarrier();
    }
    if is_there {
        forces[id.x] += sum;
    }
}
