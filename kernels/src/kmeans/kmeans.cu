// Nearest centroids: see mod.rs. A thread a point, and more by the size of the grid. All threads of a warp read the same centroid.

template <class T>
__device__ void assign(In<T> points, In<T> centroids, Out<u32> labels, Out<T> distances, Array<u32, 3> dims) {
    u32 clusters = dims[1], axes = dims[2];
    u64 count = dims[0];
    u64 all = u64(gridDim.x) * blockDim.x;
    for (u64 point = u64(blockIdx.x) * blockDim.x + threadIdx.x; point < count; point += all) {
        u32 label = 0;
        T nearest = 0;
        for (u32 cluster = 0; cluster < clusters; ++cluster) {
            T squared = 0;
            for (u32 axis = 0; axis < axes; ++axis) {
                T away = points[axis * count + point] - centroids[u64(cluster) * axes + axis];
                squared += away * away;
            }
            if (cluster == 0 || squared < nearest) {
                label = cluster;
                nearest = squared;
            }
        }
        labels[point] = label;
        distances[point] = nearest;
    }
}

KERNEL kmeans_assign_f32(
    In<f32> points, In<f32> centroids, Out<u32> labels, Out<f32> distances, Array<u32, 3> dims, Grid grid) {
    assign(points, centroids, labels, distances, dims);
}
KERNEL kmeans_assign_f64(
    In<f64> points, In<f64> centroids, Out<u32> labels, Out<f64> distances, Array<u32, 3> dims, Grid grid) {
    assign(points, centroids, labels, distances, dims);
}
