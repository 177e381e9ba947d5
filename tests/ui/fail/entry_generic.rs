use chare::prelude::*;

struct Hello;

#[chare]
impl Hello {
    fn new() -> Self {
        Hello
    }

    #[entry]
    fn show<T: ToString>(&mut self, what: T) {
        println!("{}", what.to_string());
    }

    #[entry]
    fn count<const N: usize>(&self) -> usize {
        N
    }

    #[entry]
    fn print(&mut self, what: impl ToString) {
        println!("{}", what.to_string());
    }

    #[entry]
    fn squares(&self) -> impl Iterator<Item = u32> {
        (0..3).map(|x| x * x)
    }

    #[entry]
    fn bounded(&self)
    where
        u32: Copy,
    {
    }
}

fn main() {}
