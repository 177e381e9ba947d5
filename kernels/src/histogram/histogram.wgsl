// Counts by bin: see mod.rs. Invocations go on by the size of the grid. A workgroup counts in its own memory, if that has as many bins, and
// adds what it has at the end.

struct Arguments {
    grid: vec3<u32>,
    present: u32,
    @align(16) low: f32,
    @align(16) bins_per_unit: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> counts: array<atomic<u32>>;
@group(0) @binding(2) var<uniform> arguments: Arguments;

// Zeros at first.
var<workgroup> own: array<atomic<u32>, 2048>;

@compute @workgroup_size(256)
fn histogram_f32(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) number: u32,
) {
    // Empty buffers are not there.
    let len = select(0u, arrayLength(&x), (arguments.present & 1u) != 0u);
    let bins = select(0u, arrayLength(&counts), (arguments.present & 2u) != 0u);
    let is_shared = bins <= 2048u;
    for (var i = id.x; i < len; i += groups.x * 256u) {
        let bin = (x[i] - arguments.low) * arguments.bins_per_unit;
        if bin >= 0.0 && bin < f32(bins) {
            if is_shared {
                atomicAdd(&own[u32(bin)], 1u);
            } else {
                atomicAdd(&counts[u32(bin)], 1u);
            }
        }
    }
    workgroupBarrier();
    if is_shared {
        for (var bin = number; bin < bins; bin += 256u) {
            let count = atomicLoad(&own[bin]);
            if count > 0u {
                atomicAdd(&counts[bin], count);
            }
        }
    }
}
