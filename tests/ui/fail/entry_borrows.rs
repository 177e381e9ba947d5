use std::borrow::Cow;

use chare::prelude::*;

struct Hello {
    names: Vec<String>,
}

#[chare]
impl Hello {
    fn new() -> Self {
        Hello { names: Vec::new() }
    }

    #[entry]
    fn add(&mut self, name: &str) {
        self.names.push(name.to_owned());
    }

    #[entry]
    fn add_all(&mut self, names: &[String]) {
        self.names.extend_from_slice(names);
    }

    #[entry]
    fn add_from(&mut self, names: &mut Vec<String>) {
        self.names.append(names);
    }

    #[entry]
    fn add_some(&mut self, name: Option<&'static str>) {
        self.names.extend(name.map(str::to_owned));
    }

    #[entry]
    fn add_cow(&mut self, name: Cow<'_, str>) {
        self.names.push(name.into_owned());
    }

    #[entry]
    fn show(&mut self, what: &dyn ToString) {
        self.names.push(what.to_string());
    }

    #[entry]
    fn first(&self) -> Option<&String> {
        self.names.first()
    }
}

fn main() {}
