//! An example of a policy that others add: everything goes to one endpoint, the first by name that can have it, and to the next
//! where that is full or gone. For what must have one leader, such as the primary of a database.
//!
//! `docs/extending.md` says how a program comes to have it. It deliberately depends on nothing but `balance`.

use balance::Member;
use balance::order::custom::{Arrangement, Choice, CustomOrder};

/// Policies ask for it by `customBalancing: first_of_name`.
#[derive(Debug, Default)]
pub struct FirstOfName;

impl CustomOrder for FirstOfName {
    fn name(&self) -> &str {
        "first_of_name"
    }

    fn arrange(&self, members: &[Member]) -> Box<dyn Arrangement> {
        let mut by_name: Vec<usize> = (0..members.len()).collect();
        by_name.sort_by_key(|position| {
            let endpoint = &members[*position].endpoint;
            (endpoint.name.clone(), endpoint.addr)
        });
        Box::new(ByName(by_name))
    }
}

/// Positions of members, in the order of their names.
#[derive(Debug)]
struct ByName(Vec<usize>);

impl Arrangement for ByName {
    fn choose(&self, choice: &Choice<'_>) -> Option<usize> {
        let mut positions = self.0.iter().copied();
        positions.find(|position| choice.may(*position))
    }
}
