use chare::prelude::*;

struct Cache;

#[chare]
impl Cache {
    fn new() -> Self {
        Cache
    }

    #[entry]
    fn look_up(&self) {}
}

fn places(rt: &Runtime, group: Group<Cache>, pe: PeId) {
    let _ = (group.on(0), group.on(pe), rt.single::<Cache>().on_pe(0));
    let _ = group.on(0_u64);
}

fn main() {}
