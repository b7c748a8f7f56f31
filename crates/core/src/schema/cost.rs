//! How much work a schema can make, computed before any is done.
//!
//! Parts that are applied to the same value add up, and so a small schema can do exponential work: `allOf` with twice
//! the same reference, thirty times over. Here is counted, for each depth, how many parts of the schema can meet in one value at
//! that depth of the document, and how many calls deep the library is then.

use crate::json::{Limits, Value};
use crate::text;

use super::CompileSchemaError;
use super::graph::{Applies, Graph, Part};

/// How many parts, one applied by the other, the library may be in at once: each is a few calls on the stack.
const MAX_CHAIN: u32 = 400;

/// How many parts of the schema can meet in one value, by the value's depth.
#[derive(Debug)]
pub(super) struct Cost {
    by_depth: Vec<u64>,
}

/// What can meet below one part: in members, in elements, and how long the longest chain is.
#[derive(Debug, Clone, Copy, Default)]
struct Meets {
    member: u64,
    element: u64,
    chain: u32,
}

impl Meets {
    fn most(&self) -> u64 {
        self.member.max(self.element)
    }
}

impl Cost {
    pub(super) fn of(graph: &Graph) -> Result<Self, CompileSchemaError> {
        let order = innermost_first(&graph.parts)?;
        let mut by_depth = Vec::new();
        let mut above: Vec<Meets> = Vec::new();
        for depth in 0..Limits::DEEPEST {
            let mut now = vec![Meets::default(); graph.parts.len()];
            for number in &order {
                let Some(part) = graph.parts.get(*number) else { continue };
                let meets = meets(part, depth, &now, &above);
                if let Some(place) = now.get_mut(*number) {
                    *place = meets;
                }
            }
            let Some(root) = now.first() else { break };
            if depth == 0 && root.chain > MAX_CHAIN / 8 {
                return Err(CompileSchemaError::TooLarge {
                    what: "references one behind the other",
                    limit: 50,
                });
            }
            // Deeper values than this are refused for their cost.
            if root.chain > MAX_CHAIN || root.most() > super::BUDGET {
                break;
            }
            by_depth.push(root.most());
            above = now;
        }
        Ok(Self { by_depth })
    }

    /// How often a part of the schema can meet a part of this value, at most.
    pub(super) fn of_value(&self, value: Value<'_>) -> u64 {
        self.below(value, 0)
    }

    fn below(&self, value: Value<'_>, depth: usize) -> u64 {
        let here = self.by_depth.get(depth).copied().unwrap_or(u64::MAX);
        let inside = value.members().map(|(_, member)| member).chain(value.elements());
        inside.fold(here, |sum, inner| sum.saturating_add(self.below(inner, depth + 1)))
    }
}

/// What meets `depth` levels below a part, given what meets there below the parts that are applied to the same value
/// (`now`), and one level less below all (`above`).
fn meets(part: &Part, depth: usize, now: &[Meets], above: &[Meets]) -> Meets {
    let mut sum = if depth == 0 { Meets { member: 1, element: 1, chain: 1 } } else { Meets::default() };
    let (mut member, mut element) = (0_u64, 0_u64);
    for (applies, number) in &part.edges {
        let same = now.get(*number).copied().unwrap_or_default();
        let less = above.get(*number).copied().unwrap_or_default();
        let chain = match applies {
            Applies::Here => {
                let times = if part.looks_twice { 2 } else { 1 };
                sum.member = sum.member.saturating_add(same.member.saturating_mul(times));
                sum.element = sum.element.saturating_add(same.element.saturating_mul(times));
                same.chain
            }
            Applies::Member => {
                member = member.max(less.most());
                less.chain
            }
            Applies::AnyMember => {
                sum.member = sum.member.saturating_add(less.most());
                less.chain
            }
            Applies::Element => {
                element = element.max(less.most());
                less.chain
            }
            Applies::AnyElement => {
                sum.element = sum.element.saturating_add(less.most());
                less.chain
            }
            Applies::Nothing => 0,
        };
        if chain > 0 {
            sum.chain = sum.chain.max(chain.saturating_add(1));
        }
    }
    sum.member = sum.member.saturating_add(member);
    sum.element = sum.element.saturating_add(element);
    sum
}

/// The parts in an order in which each comes after those it applies to the same value.
fn innermost_first(parts: &[Part]) -> Result<Vec<usize>, CompileSchemaError> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        No,
        Begun,
        Done,
    }
    let mut seen = vec![Seen::No; parts.len()];
    let mut order = Vec::with_capacity(parts.len());
    // A stack of our own: a chain of references may be long.
    for start in 0..parts.len() {
        let mut stack = vec![start];
        while let Some(number) = stack.last().copied() {
            let (Some(part), Some(state)) = (parts.get(number), seen.get_mut(number)) else { break };
            match *state {
                Seen::Done => {
                    stack.pop();
                }
                Seen::Begun => {
                    *state = Seen::Done;
                    order.push(number);
                    stack.pop();
                }
                Seen::No => {
                    *state = Seen::Begun;
                    let here = part.edges.iter().filter(|(applies, _)| *applies == Applies::Here);
                    for (_, next) in here {
                        match seen.get(*next) {
                            Some(Seen::No) => stack.push(*next),
                            Some(Seen::Begun) => {
                                return Err(CompileSchemaError::Endless(text::quoted(&part.path, 200)));
                            }
                            Some(Seen::Done) | None => {}
                        }
                    }
                }
            }
        }
    }
    Ok(order)
}
