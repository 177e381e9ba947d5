// Nearest centroids: see mod.rs. An invocation a point, and more by the size of the grid.

struct Arguments {
    grid: vec3<u32>,
    present: u32,
    @align(16) dims: vec3<u32>,
}

@group(0) @binding(0) var<storage, read> points: array<f32>;
@group(0) @binding(1) var<storage, read> centroids: array<f32>;
@group(0) @binding(2) var<storage, read_write> labels: array<u32>;
@group(0) @binding(3) var<storage, read_write> distances: array<f32>;
@group(0) @binding(4) var<uniform> arguments: Arguments;

@compute @workgroup_size(256)
fn kmeans_assign_f32(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let count = arguments.dims.x;
    let clusters = arguments.dims.y;
    let axes = arguments.dims.z;
    for (var point = id.x; point < count; point += groups.x * 256u) {
        var label = 0u;
        var nearest = 0.0;
        for (var cluster = 0u; cluster < clusters; cluster++) {
            var squared = 0.0;
            for (var axis = 0u; axis < axes; axis++) {
                let away = points[axis * count + point] - centroids[cluster * axes + axis];
                squared += away * away;
            }
            if cluster == 0u || squared < nearest {
                label = cluster;
                nearest = squared;
            }
        }
        labels[point] = label;
        distances[point] = nearest;
    }
}
