// Unpacking edges in one launch: see edges.rs; edges.wgsl stands behind this text. An invocation a cell; an edge that is absent is skipped.

@group(0) @binding(0) var<storage, read> x_low: array<f32>;
@group(0) @binding(1) var<storage, read> x_high: array<f32>;
@group(0) @binding(2) var<storage, read> y_low: array<f32>;
@group(0) @binding(3) var<storage, read> y_high: array<f32>;
@group(0) @binding(4) var<storage, read_write> u: array<f32>;
@group(0) @binding(5) var<uniform> arguments: Arguments;

@compute @workgroup_size(256)
fn unpack_edges_f32(@builtin(global_invocation_id) id: vec3<u32>) {
    let cell = cell_of(id.x);
    if cell.edge == 4u || (arguments.present >> cell.edge & 1u) == 0u {
        return;
    }
    let at = place(cell, 1u);
    switch cell.edge {
        case 0u: { u[at] = x_low[cell.number]; }
        case 1u: { u[at] = x_high[cell.number]; }
        case 2u: { u[at] = y_low[cell.number]; }
        default: { u[at] = y_high[cell.number]; }
    }
}
