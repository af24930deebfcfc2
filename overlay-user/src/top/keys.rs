//! What keys do.

use std::ops::ControlFlow;

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::model::Model;

/// Does what a key is for. Breaks where it ends the program.
pub(super) fn obey(event: &Event, model: &mut Model) -> ControlFlow<()> {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press | KeyEventKind::Repeat, .. }) = event else {
        return ControlFlow::Continue(());
    };
    match code {
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => return ControlFlow::Break(()),
        KeyCode::Esc if model.help => model.help = false,
        KeyCode::Char('q') | KeyCode::Esc => return ControlFlow::Break(()),
        KeyCode::Char('s') | KeyCode::Right => model.sort = model.sort.next(),
        KeyCode::Char('r') => model.reversed = !model.reversed,
        KeyCode::Char('p' | ' ') => model.paused = !model.paused,
        KeyCode::Char('h' | '?') => model.help = !model.help,
        _ => {}
    }
    ControlFlow::Continue(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::model::Column;

    fn press(model: &mut Model, code: KeyCode) -> ControlFlow<()> {
        obey(&Event::Key(code.into()), model)
    }

    #[test]
    fn keys_sort_and_pause() {
        let mut model = Model::default();
        assert!(press(&mut model, KeyCode::Char('s')).is_continue());
        assert_eq!(model.sort, Column::Received);
        assert!(press(&mut model, KeyCode::Char('p')).is_continue());
        assert!(model.paused);
    }

    #[test]
    fn escape_closes_the_help_before_it_ends_the_program() {
        let mut model = Model::default();
        assert!(press(&mut model, KeyCode::Char('?')).is_continue());
        assert!(press(&mut model, KeyCode::Esc).is_continue());
        assert!(!model.help);
        assert!(press(&mut model, KeyCode::Esc).is_break());
    }

    #[test]
    fn control_and_c_end_the_program_and_c_alone_does_not() {
        let mut model = Model::default();
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert!(obey(&Event::Key(interrupt), &mut model).is_break());
        assert!(press(&mut model, KeyCode::Char('c')).is_continue());
    }
}
