//! The prelude and the names of devices, both in whole.

use chare::device::*;
use chare::prelude::*;

struct Block {
    cells: DeviceVec<f32>,
}

#[chare]
impl Block {
    fn new(cx: &Cx<Self>) -> Result<Self> {
        Ok(Block { cells: cx.device().alloc(4)? })
    }

    #[entry]
    async fn cells(this: This<Self>) -> Result<Vec<f32>> {
        let read = this.with(|block| this.device().download(&block.cells))?;
        Ok(read.await?)
    }
}

fn total<T: DevicePod + Into<f64>>(values: &[T]) -> f64 {
    values.iter().map(|&value| value.into()).sum()
}

#[chare::main]
async fn main(rt: Runtime) -> Result<()> {
    let block: Element<Block> = rt.single::<Block>().create(()).await?;
    assert_eq!(total(&block.cells().await?), 0.0);
    Ok(())
}
