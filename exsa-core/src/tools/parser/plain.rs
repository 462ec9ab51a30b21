//! Text and reasoning outside blocks of calls, and the markers in them.

use super::block::OpenBlock;
use super::find::{Found, find, space_len};
use super::{Marker, OutputParser, State};

impl OutputParser {
    pub(super) fn text(&mut self, ended: bool) -> bool {
        if self.fresh {
            let space = space_len(self.input.rest());
            if !self.input.is_hidden() && space > 0 {
                let mut visible = String::new();
                self.input.take_visible(space, &mut visible);
                self.space.push_str(&visible);
            }
        }
        let rest = self.input.rest();
        if rest.is_empty() {
            if ended && !self.separated {
                self.out.text(&std::mem::take(&mut self.space));
            }
            return false;
        }
        if self.fresh {
            match find(rest, &self.first_markers.0, ended) {
                Found::Marker { at: 0, index } => {
                    let (text, marker) = (self.first_markers.0[index], self.first_markers.1[index]);
                    return self.marker(text, marker);
                }
                Found::Partial { at: 0 } => return false,
                _ => {}
            }
        }
        let found = find(rest, &self.markers.0, ended);
        let end = match found {
            Found::Marker { at, .. } | Found::Partial { at } => at,
            Found::None => rest.len(),
        };
        let mut visible = String::new();
        self.input.take_visible(end, &mut visible);
        self.emit_text(&visible);
        match found {
            Found::Marker { index, .. } => self.marker(self.markers.0[index], self.markers.1[index]),
            Found::Partial { .. } => false,
            Found::None => {
                if ended {
                    self.out.text(&std::mem::take(&mut self.space));
                }
                false
            }
        }
    }

    /// Appends text; white space at its end is held back while a call may follow.
    pub(super) fn emit_text(&mut self, text: &str) {
        let body = text.trim_end();
        if !body.is_empty() {
            if self.fresh && self.separated {
                self.space.clear();
            }
            self.fresh = false;
            self.separated = false;
            self.out.text(&std::mem::take(&mut self.space));
            self.out.text(body);
        }
        self.space.push_str(text.get(body.len()..).unwrap_or_default());
        if self.blocks.is_empty() && !self.fresh {
            self.out.text(&std::mem::take(&mut self.space));
        }
    }

    pub(super) fn marker(&mut self, text: &'static str, marker: Marker) -> bool {
        match marker {
            Marker::Block(index) => {
                let block = &self.blocks[index];
                if !block.keep {
                    self.input.take(text.len(), &mut self.written);
                }
                self.state = State::Block(OpenBlock { block, call: None, calls: 0 });
            }
            Marker::OpenReasoning => {
                self.input.skip(text.len());
                self.space.clear();
                self.separated = true;
                self.state = State::Reasoning;
            }
            Marker::CloseReasoning => {
                self.input.skip(text.len());
                self.leave();
            }
            Marker::Dropped => self.input.skip(text.len()),
        }
        true
    }

    /// Continues with text, after reasoning or calls.
    pub(super) fn leave(&mut self) {
        self.space.clear();
        self.written.clear();
        self.fresh = true;
        self.separated = true;
        self.state = State::Text;
    }

    pub(super) fn reasoning(&mut self, ended: bool) -> bool {
        self.state = State::Reasoning;
        let rest = self.input.rest();
        if rest.is_empty() {
            return false;
        }
        let found = find(rest, &self.close_markers.0, ended);
        let end = match found {
            Found::Marker { at, .. } | Found::Partial { at } => at,
            Found::None => rest.len(),
        };
        let mut visible = String::new();
        self.input.take_visible(end, &mut visible);
        self.emit_reasoning(&visible);
        match found {
            Found::Marker { index, .. } => {
                let (text, marker) = (self.close_markers.0[index], self.close_markers.1[index]);
                if marker != Marker::CloseReasoning {
                    self.leave();
                }
                self.fresh = true;
                self.marker(text, marker)
            }
            _ => false,
        }
    }

    /// Appends reasoning without surrounding white space. `fresh` tells whether it is the first piece.
    pub(super) fn emit_reasoning(&mut self, text: &str) {
        let body = text.trim_end();
        let body_start = if self.fresh { body.trim_start() } else { body };
        if !body.is_empty() {
            if self.fresh {
                self.space.clear();
            }
            self.fresh = false;
            self.out.reasoning(&std::mem::take(&mut self.space));
            self.out.reasoning(body_start);
        }
        self.space.push_str(text.get(body.len()..).unwrap_or_default());
    }
}
