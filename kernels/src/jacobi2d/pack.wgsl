// Packing edges in one launch: see edges.rs; edges.wgsl stands behind this text. An invocation a cell; an edge that is absent is skipped.

@group(0) @binding(0) var<storage, read> u: array<f32>;
@group(0) @binding(1) var<storage, read_write> x_low: array<f32>;
@group(0) @binding(2) var<storage, read_write> x_high: array<f32>;
@group(0) @binding(3) var<storage, read_write> y_low: array<f32>;
@group(0) @binding(4) var<storage, read_write> y_high: array<f32>;
@group(0) @binding(5) var<uniform> arguments: Arguments;

@compute @workgroup_size(256)
fn pack_edges_f32(@builtin(global_invocation_id) id: vec3<u32>) {
    let cell = cell_of(id.x);
    if cell.edge == 4u || (arguments.present >> (cell.edge + 1u) & 1u) == 0u {
        return;
    }
    let at = place(cell, 0u);
    switch cell.edge {
        case 0u: { x_low[cell.number] = u[at]; }
        case 1u: { x_high[cell.number] = u[at]; }
        case 2u: { y_low[cell.number] = u[at]; }
        default: { y_high[cell.number] = u[at]; }
    }
}
