//! The first program: an array, entry methods that run to completion, and one call of each kind.

use chare::prelude::*;

struct Hello {
    greeted: u32,
}

#[chare(index = usize)]
impl Hello {
    fn new(_cx: &Cx<Self>, greeted: u32) -> Self {
        Hello { greeted }
    }

    /// Counts a greeting.
    #[entry]
    fn say_hi(&mut self, cx: &Cx<Self>, from: usize) -> u32 {
        self.greeted += (cx.index() + from) as u32;
        self.greeted
    }

    #[entry]
    fn greeted(&self) -> u32 {
        self.greeted
    }
}

struct Guest;

#[chare(index = (usize, usize))]
impl Guest {
    fn new() -> Self {
        Guest
    }

    // The same name as above, with other arguments: the proxy's type tells which.
    #[entry]
    fn say_hi(&self) -> usize {
        7
    }
}

#[chare::main]
async fn main(rt: Runtime) -> Result<()> {
    let hellos = rt.array::<Hello>(4).create(10).await?;
    assert_eq!(hellos.at(3).say_hi(2).await?, 15);
    hellos.say_hi(0).await?;
    assert_eq!(hellos.greeted().gather().await?, [10, 11, 12, 18]);
    let guests = rt.array::<Guest>((1, 2)).create(()).await?;
    assert_eq!(guests.say_hi().gather().await?, [7, 7]);
    Ok(())
}
