//! Circles of a graph: its strongly connected components.

use super::graph::Graph;
use std::collections::BTreeSet;

/// Groups of two or more nodes that all reach each other, the largest first: Tarjan's algorithm (1972).
pub fn circles(graph: &Graph) -> Vec<Vec<usize>> {
    let count = graph.arrows.len();
    let mut search = Search {
        arrows: &graph.arrows,
        found: vec![None; count],
        lowest: vec![0; count],
        open: Vec::new(),
        next: 0,
        circles: Vec::new(),
    };
    for node in 0..count {
        if search.found[node].is_none() {
            search.visit(node);
        }
    }
    search
        .circles
        .sort_by_key(|circle| (usize::MAX - circle.len(), circle[0]));
    search.circles
}

struct Search<'a> {
    arrows: &'a [BTreeSet<usize>],
    /// The order in which nodes are found.
    found: Vec<Option<usize>>,
    /// The earliest open node that each reaches.
    lowest: Vec<usize>,
    /// Nodes whose component is not complete.
    open: Vec<usize>,
    next: usize,
    circles: Vec<Vec<usize>>,
}

impl Search<'_> {
    fn visit(&mut self, node: usize) {
        let order = self.next;
        self.next += 1;
        self.found[node] = Some(order);
        self.lowest[node] = order;
        self.open.push(node);
        for &to in &self.arrows[node] {
            match self.found[to] {
                None => {
                    self.visit(to);
                    self.lowest[node] = self.lowest[node].min(self.lowest[to]);
                }
                Some(order) if self.open.contains(&to) => {
                    self.lowest[node] = self.lowest[node].min(order)
                }
                Some(_) => {}
            }
        }
        if self.lowest[node] == order {
            let start = self
                .open
                .iter()
                .position(|open| *open == node)
                .unwrap_or_default();
            let mut circle = self.open.split_off(start);
            circle.sort_unstable();
            if circle.len() > 1 {
                self.circles.push(circle);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(arrows: &[&[usize]]) -> Vec<Vec<usize>> {
        let arrows = arrows
            .iter()
            .map(|to| to.iter().copied().collect())
            .collect();
        circles(&Graph {
            files: Vec::new(),
            arrows,
        })
    }

    #[test]
    fn circles_are_found_and_chains_are_none() {
        assert!(of(&[&[1, 2], &[2], &[]]).is_empty());
        assert_eq!(of(&[&[1], &[0], &[0]]), [[0, 1]]);
        let two = of(&[&[1], &[0, 2], &[3], &[4], &[2, 3]]);
        assert_eq!(two, [vec![2, 3, 4], vec![0, 1]]);
        assert_eq!(of(&[&[1], &[2], &[3], &[1, 0]]), [[0, 1, 2, 3]]);
    }
}
