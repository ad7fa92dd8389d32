//! YAML: one document, plain tags only. Anchors, aliases and merge keys work; what they expand to is bounded.

use super::{Entry, MAX_DEPTH, MAX_NODES, Node, Value, mapping, plain};
use crate::problem::{Place, Step, Wrong};
use granit_parser::{Event, Marker, Parser, ScalarStyle, Tag};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

pub(super) fn parse(text: &str) -> Result<Node, Wrong> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let place = place(error.marker());
            let line = text.lines().nth(place.line.saturating_sub(1));
            let hint = match line {
                Some(line) if line.contains("${") => {
                    ": beside `{` or `[`, ${NAME} is written in quotes"
                }
                _ => "",
            };
            Wrong::here(place, format!("{}{hint}", error.info()))
        })?;
        builder.event(event, place(&span.start))?;
    }
    Ok(builder.root.unwrap_or(Node {
        place: Place::default(),
        value: Value::Null,
    }))
}

fn place(marker: &Marker) -> Place {
    Place {
        line: marker.line(),
        column: marker.col() + 1,
    }
}

/// A list or mapping that is not complete.
struct Open {
    place: Place,
    anchor: usize,
    /// `None` for a list.
    map: Option<Vec<Entry>>,
    list: Vec<Node>,
    key: Option<(String, Place)>,
}

#[derive(Default)]
struct Builder {
    root: Option<Node>,
    documents: usize,
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, place: Place) -> Result<(), Wrong> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(Wrong::here(
                        place,
                        "a second document: a configuration is one (Kubernetes objects are served by `serve --manifests`)",
                    ));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = is_text(tag, place)?;
                let value = if style == ScalarStyle::Plain && !is_text {
                    if self.wants_key() {
                        Value::Text(text.into_owned())
                    } else if text.contains("${") {
                        Value::Filled(text.into_owned())
                    } else {
                        plain(&text, place)?
                    }
                } else {
                    Value::Text(text.into_owned())
                };
                self.complete(Node { place, value }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                is_text(tag, place)?;
                self.start(place, anchor, None)
            }
            Event::MappingStart(_, anchor, tag) => {
                is_text(tag, place)?;
                self.start(place, anchor, Some(Vec::new()))
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else {
                    return Ok(());
                };
                let value = match open.map {
                    Some(map) => mapping(merged(map)?, self.path())?,
                    None => Value::List(open.list),
                };
                let node = Node {
                    place: open.place,
                    value,
                };
                self.complete(node, open.anchor)
            }
            Event::Alias(anchor) => {
                let Some((node, size)) = self.anchors.get(&anchor) else {
                    return Err(Wrong::here(
                        place,
                        "an alias of something that is not complete",
                    ));
                };
                self.nodes += size;
                if self.nodes > MAX_NODES || depth(node) + self.open.len() > MAX_DEPTH {
                    return Err(Wrong::here(place, "the aliases expand to too much"));
                }
                let node = Node {
                    place,
                    value: node.value.clone(),
                };
                self.complete(node, 0)
            }
            _ => Ok(()),
        }
    }

    fn wants_key(&self) -> bool {
        self.open
            .last()
            .is_some_and(|open| open.map.is_some() && open.key.is_none())
    }

    fn start(&mut self, place: Place, anchor: usize, map: Option<Vec<Entry>>) -> Result<(), Wrong> {
        if self.wants_key() {
            return Err(Wrong::here(place, "a list or mapping as a key"));
        }
        if self.open.len() >= MAX_DEPTH {
            let message = format!("nested deeper than {MAX_DEPTH} levels");
            return Err(Wrong::here(place, message));
        }
        self.open.push(Open {
            place,
            anchor,
            map,
            list: Vec::new(),
            key: None,
        });
        Ok(())
    }

    /// Puts a complete value where it belongs.
    fn complete(&mut self, node: Node, anchor: usize) -> Result<(), Wrong> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(Wrong::here(
                node.place,
                format!("more than {MAX_NODES} values"),
            ));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), size(&node)));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        let Some(map) = &mut open.map else {
            open.list.push(node);
            return Ok(());
        };
        match (open.key.take(), node.value) {
            (Some((key, key_place)), value) => {
                let node = Node {
                    place: node.place,
                    value,
                };
                map.push(Entry {
                    key,
                    place: key_place,
                    node,
                });
                Ok(())
            }
            (None, Value::Text(key)) => {
                open.key = Some((key, node.place));
                Ok(())
            }
            (None, _) => Err(Wrong::here(node.place, "a key must be text")),
        }
    }

    /// Where the next value will be.
    fn path(&self) -> Vec<Step> {
        let steps = self.open.iter().map(|open| match &open.key {
            Some((key, _)) => Step::Key(key.clone()),
            None => Step::Index(open.list.len()),
        });
        steps.collect()
    }
}

/// A mapping with what stands below its merge key (`<<: *shared`): a mapping or a list of them, whose keys count where it has
/// none of that name itself.
fn merged(mut map: Vec<Entry>) -> Result<Vec<Entry>, Wrong> {
    let mut found = (0..map.len()).filter(|at| map[*at].key == "<<");
    // Two of them are refused like any key that repeats.
    let (Some(at), None) = (found.next(), found.next()) else {
        return Ok(map);
    };
    let node = map.remove(at).node;
    let all = match node.value {
        Value::List(all) => all,
        _ => vec![node],
    };
    for one in all {
        let Value::Map(entries) = one.value else {
            let message = "the merge key \"<<\" wants keys and values, or a list of them";
            return Err(Wrong::here(one.place, message));
        };
        let known: HashSet<String> = map.iter().map(|entry| entry.key.clone()).collect();
        map.extend(entries.into_iter().filter(|one| !known.contains(&one.key)));
    }
    Ok(map)
}

/// Whether a tag says that a scalar is text; others than those of the core schema are refused.
fn is_text(tag: Option<Cow<'_, Tag>>, place: Place) -> Result<bool, Wrong> {
    match tag {
        None => Ok(false),
        Some(tag) => match tag.core_suffix() {
            Some("str") => Ok(true),
            Some("map" | "seq" | "int" | "bool" | "null" | "float") => Ok(false),
            _ => Err(Wrong::here(place, "tags are not supported")),
        },
    }
}

fn size(node: &Node) -> usize {
    match &node.value {
        Value::List(all) => 1 + all.iter().map(size).sum::<usize>(),
        Value::Map(all) => 1 + all.iter().map(|entry| size(&entry.node)).sum::<usize>(),
        _ => 1,
    }
}

fn depth(node: &Node) -> usize {
    match &node.value {
        Value::List(all) => 1 + all.iter().map(depth).max().unwrap_or(0),
        Value::Map(all) => {
            1 + all
                .iter()
                .map(|entry| depth(&entry.node))
                .max()
                .unwrap_or(0)
        }
        _ => 0,
    }
}
