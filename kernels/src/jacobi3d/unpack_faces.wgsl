// Unpacking all faces in one launch: see faces.rs. A face that is absent is skipped.

struct Arguments {
    grid: vec3<u32>,
    present: u32,
    @align(16) dims: vec3<u32>,
}

@group(0) @binding(0) var<storage, read> x_low: array<f32>;
@group(0) @binding(1) var<storage, read> x_high: array<f32>;
@group(0) @binding(2) var<storage, read> y_low: array<f32>;
@group(0) @binding(3) var<storage, read> y_high: array<f32>;
@group(0) @binding(4) var<storage, read> z_low: array<f32>;
@group(0) @binding(5) var<storage, read> z_high: array<f32>;
@group(0) @binding(6) var<storage, read_write> u: array<f32>;
@group(0) @binding(7) var<uniform> arguments: Arguments;

fn face_len(face: u32) -> u32 {
    let dims = arguments.dims;
    return select(dims.x, dims.y, face < 2u) * select(dims.y, dims.z, face < 4u);
}

// Where cell `cell` of a face stands in the padded array, among the ghosts.
fn place(face: u32, cell: u32) -> u32 {
    let dims = arguments.dims;
    let step_y = dims.z + 2u;
    let step_x = (dims.y + 2u) * step_y;
    let axis = face / 2u;
    let depth = select(0u, dims[axis] + 1u, face % 2u == 1u);
    let row_len = select(dims.y, dims.z, face < 4u);
    let slow = cell / row_len + 1u;
    let fast = cell % row_len + 1u;
    switch axis {
        case 0u: { return depth * step_x + slow * step_y + fast; }
        case 1u: { return slow * step_x + depth * step_y + fast; }
        default: { return slow * step_x + fast * step_y + depth; }
    }
}

@compute @workgroup_size(256)
fn unpack_faces_f32(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    var number = id.x;
    // One cell an invocation, if the grid has as many elements as the faces have cells; else several.
    let all = groups.x * 256u;
    let dims = arguments.dims;
    let cells = 2u * (dims.y * dims.z + dims.x * dims.z + dims.x * dims.y);
    for (; number < cells; number += all) {
        var cell = number;
        var face = 0u;
        while cell >= face_len(face) {
            cell -= face_len(face);
            face += 1u;
        }
        if (arguments.present >> face & 1u) == 0u {
            continue;
        }
        let at = place(face, cell);
        switch face {
            case 0u: { u[at] = x_low[cell]; }
            case 1u: { u[at] = x_high[cell]; }
            case 2u: { u[at] = y_low[cell]; }
            case 3u: { u[at] = y_high[cell]; }
            case 4u: { u[at] = z_low[cell]; }
            default: { u[at] = z_high[cell]; }
        }
    }
}
