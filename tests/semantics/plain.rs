//! Vectors and arrays of plain values in everything that is sent: between the first and the last PE, which are in different processes with
//! `CHARE_TEST_PROCESSES=2`. Whatever their layout in memory, they come as they were.

use chare::prelude::*;
use chare::reduction::Sum;
use ndarray::{Array1, Array2, Array3, ArrayD, Axis, ShapeBuilder, s};
use serde::{Deserialize, Serialize};

/// A part of a field, as one chare has it and gives it to others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Patch {
    level: u32,
    #[serde(with = "chare::bulk")]
    cells: Array3<f64>,
    #[serde(with = "chare::bulk")]
    neighbours: Vec<[u32; 2]>,
    small: ArrayD<u8>,
}

impl Patch {
    fn new(level: u32) -> Patch {
        let mut cells = Array3::from_shape_fn((7, 9, 11).f(), |(i, j, k)| (i + 10 * j + 100 * k) as f64);
        cells[[0, 0, 0]] = f64::from(level);
        Patch { level, cells, neighbours: vec![[level, 3]; 200], small: ArrayD::zeros(vec![2, 2]) }
    }
}

#[derive(Serialize, Deserialize)]
struct Holder {
    patch: Patch,
    got: Vec<String>,
}

type Rows = Array2<f32>;

#[chare(index = usize)]
impl Holder {
    fn new(cx: &Cx<Self>) -> Self {
        Holder { patch: Patch::new(cx.index() as u32), got: Vec::new() }
    }

    #[entry]
    fn turned(&self, rows: Array2<f64>) -> Array2<f64> {
        rows.reversed_axes()
    }

    #[entry]
    fn shapes(&self, empty: Array2<i32>, any: ArrayD<u64>) -> (Vec<usize>, Vec<usize>) {
        (empty.shape().to_vec(), any.shape().to_vec())
    }

    #[entry]
    fn swap(&mut self, patch: Patch) -> Patch {
        std::mem::replace(&mut self.patch, patch)
    }

    #[entry]
    async fn exchange(this: This<Self>, peer: usize) -> Result<Array2<u16>> {
        let channel: Channel<Array2<u16>> = this.channel(&this.array().at(peer), 0);
        channel.send(Array2::from_elem((40, 30), this.index() as u16))?;
        Ok(channel.recv().await?)
    }

    #[entry]
    fn fulfil(&self, sums: Promise<Vec<i64>>, table: Promise<Array2<f32>>) -> Result<()> {
        sums.send((0..1000).collect())?;
        Ok(table.send(Array2::from_shape_fn((100, 3).f(), |(i, j)| (i * j) as f32))?)
    }

    #[entry]
    fn got_two(&mut self, values: Vec<f64>, count: u32) {
        self.got.push(format!("{} values, {count}", values.len()));
    }

    #[entry]
    fn got_alone(&mut self, values: Vec<f64>) {
        self.got.push(format!("{} values", values.len()));
    }

    #[entry]
    fn got_rows(&mut self, rows: Rows, points: Vec<[f64; 3]>) {
        self.got.push(format!("{:?} rows, {} points", rows.shape(), points.len()));
    }

    #[entry]
    fn got(&self) -> Vec<String> {
        self.got.clone()
    }

    #[entry]
    fn deliver(
        &self,
        two: Callback<(Vec<f64>, u32)>,
        alone: Callback<Vec<f64>>,
        rows: Callback<(Rows, Vec<[f64; 3]>)>,
    ) -> Result<()> {
        two.deliver((vec![0.5; 500], 7))?;
        alone.deliver(vec![0.5; 400])?;
        Ok(rows.deliver((Array2::zeros((30, 20)), vec![[1.0; 3]; 100]))?)
    }

    #[entry]
    fn points(&self, count: usize) -> Vec<[f64; 3]> {
        vec![[0.5; 3]; count]
    }

    /// Fulfils a promise by hand, and by what a call of another one answers.
    #[entry]
    fn find_points(&self, cx: &Cx<Self>, peer: usize, all: Promise<Vec<[f64; 3]>>) -> Result<()> {
        cx.array().at(peer).points(300).to(all.clone());
        Ok(all.send(vec![[0.5; 3]; 300])?)
    }

    #[entry]
    fn add_up(&self, cx: &Cx<Self>, to: Promise<Array1<f64>>) {
        cx.contribute(Array1::from_elem(500, cx.index() as f64), Sum, to);
    }
}

async fn holders(rt: &Runtime) -> Result<(Array<Holder>, usize)> {
    let count = rt.num_pes();
    Ok((rt.array::<Holder>(count).create(()).await?, count - 1))
}

#[chare::test(pes = [1, 2, 4])]
async fn arrays_are_arguments_and_values_whatever_their_layout(rt: Runtime) -> Result<()> {
    let (holders, last) = holders(&rt).await?;
    let far = holders.at(last);
    let rows = Array2::from_shape_fn((20, 30), |(i, j)| (i * 100 + j) as f64);
    let every_second = rows.slice(s![..;2, ..]).to_owned();
    let mut backwards = rows.clone();
    backwards.invert_axis(Axis(0));
    let mut parted = rows.clone();
    parted.slice_collapse(s![5..15, ..;3]);
    for array in [rows, every_second, backwards, parted] {
        let turned = far.turned(array.clone()).await?;
        assert_eq!(turned, array.reversed_axes());
    }
    let shapes = far.shapes(Array2::zeros((0, 4)), ArrayD::zeros(vec![1, 2, 3, 1, 20])).await?;
    assert_eq!(shapes, (vec![0, 4], vec![1, 2, 3, 1, 20]));
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn fields_travel_with_what_they_are_parts_of(rt: Runtime) -> Result<()> {
    let (holders, last) = holders(&rt).await?;
    let far = holders.at(last);
    assert_eq!(far.swap(Patch::new(50)).await?, Patch::new(last as u32));
    // And with a chare.
    far.migrate(0).await?;
    assert_eq!(far.swap(Patch::new(51)).await?, Patch::new(50));
    far.migrate(last).await?;
    let back = far.swap(Patch::new(52)).await?;
    assert_eq!((back.cells.strides(), &back), (Patch::new(51).cells.strides(), &Patch::new(51)));
    Ok(())
}

#[chare::test(pes = [2, 4])]
async fn channels_promises_and_reductions_bring_arrays(rt: Runtime) -> Result<()> {
    let (holders, last) = holders(&rt).await?;
    let (here, there) = (holders.at(0).exchange(last).future(), holders.at(last).exchange(0).future());
    assert_eq!(here.await?, Array2::from_elem((40, 30), last as u16));
    assert_eq!(there.await?, Array2::from_elem((40, 30), 0));
    let ((sums, summed), (table, tabled)) = (rt.promise(), rt.promise());
    holders.at(last).fulfil(sums, table).await?;
    assert_eq!(summed.await?, (0..1000).collect::<Vec<_>>());
    assert_eq!(tabled.await?, Array2::from_shape_fn((100, 3), |(i, j)| (i * j) as f32));
    let (to, total) = rt.promise();
    holders.add_up(to).await?;
    assert_eq!(total.await?, Array1::from_elem(500, (last * (last + 1) / 2) as f64));
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn callbacks_bring_them_alone_and_with_others(rt: Runtime) -> Result<()> {
    let (holders, last) = holders(&rt).await?;
    let near = holders.at(0);
    let (two, alone) = (near.callback(Holder::GOT_TWO), near.callback(Holder::GOT_ALONE));
    holders.at(last).deliver(two, alone, near.callback(Holder::GOT_ROWS)).await?;
    rt.quiescence().await?;
    let mut got = near.got().await?;
    got.sort_unstable();
    assert_eq!(got, ["400 values", "500 values, 7", "[30, 20] rows, 100 points"]);
    Ok(())
}

/// An end of the promise leaves as an argument, and another one as what a call answers to.
#[chare::test(pes = [1, 2, 4])]
async fn ends_of_a_promise_bring_values_of_its_type_whichever_way_they_left(rt: Runtime) -> Result<()> {
    let (holders, last) = holders(&rt).await?;
    for (asked, peer) in [(last, last), (last, 0), (0, last), (last / 2, last)] {
        let (all, points) = rt.promises(3);
        holders.at(last).points(300).to(all.clone());
        holders.at(asked).find_points(peer, all).await?;
        assert_eq!(points.await?, vec![vec![[0.5; 3]; 300]; 3]);
    }
    Ok(())
}
