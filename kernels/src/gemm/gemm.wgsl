// c = alpha a b + beta c: see mod.rs. An invocation an element of c, x of the grid along its rows. A workgroup goes along k in tiles.

struct Arguments {
    grid: vec3<u32>,
    present: u32,
    @align(16) dims: vec3<u32>,
    @align(16) alpha: f32,
    @align(16) beta: f32,
}

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> c: array<f32>;
@group(0) @binding(3) var<uniform> arguments: Arguments;

var<workgroup> tile_a: array<array<f32, 16>, 16>;
var<workgroup> tile_b: array<array<f32, 16>, 16>;

@compute @workgroup_size(16, 16)
fn gemm_f32(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_id) at: vec3<u32>) {
    let m = arguments.dims.x;
    let n = arguments.dims.y;
    let k = arguments.dims.z;
    let row = id.y;
    let column = id.x;
    var sum = 0.0;
    for (var start = 0u; start < k; start += 16u) {
        var from_a = 0.0;
        if row < m && start + at.x < k {
            from_a = a[row * k + start + at.x];
        }
        tile_a[at.y][at.x] = from_a;
        var from_b = 0.0;
        if column < n && start + at.y < k {
            from_b = b[(start + at.y) * n + column];
        }
        tile_b[at.y][at.x] = from_b;
        workgroupBarrier();
        for (var i = 0u; i < 16u; i++) {
            sum += tile_a[at.y][i] * tile_b[i][at.x];
        }
        workgroupBarrier();
    }
    if row < m && column < n {
        var before = 0.0;
        if arguments.beta != 0.0 {
            before = arguments.beta * c[row * n + column];
        }
        c[row * n + column] = arguments.alpha * sum + before;
    }
}
