//! Page tokens: opaque outside, inside the place of the item last shown, so that what arrives or goes
//! meanwhile moves nothing past the page.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    gmail_api::{Manner, Refused},
    mailbox::Position,
};

/// Which list a page token belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) enum PageToken {
    /// messages.list.
    Message,
    /// history.list; only the id counts.
    History,
}

impl PageToken {
    fn mark(self) -> [u8; 4] {
        match self {
            Self::Message => *b"pgM1",
            Self::History => *b"pgH1",
        }
    }

    /// The token of the page after `position`.
    pub(super) fn write(self, position: Position, manner: &Manner) -> String {
        let mut bytes = [0; 24];
        bytes[..4].copy_from_slice(&self.mark());
        bytes[4..8].copy_from_slice(&manner.generation.to_be_bytes());
        bytes[8..16].copy_from_slice(&position.internal_date_ms.to_be_bytes());
        bytes[16..].copy_from_slice(&position.id.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The place a token names; refused if it is no token of this list and generation.
    pub(super) fn read(self, token: &str, manner: &Manner) -> Result<Position, Refused> {
        let refused = || Refused::argument("Invalid pageToken");
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| refused())?;
        let bytes: [u8; 24] = bytes.try_into().map_err(|_| refused())?;
        let mut halves = [[0; 8]; 3];
        for (half, chunk) in halves.iter_mut().zip(bytes.chunks_exact(8)) {
            half.copy_from_slice(chunk);
        }
        let [head, date, id] = halves;
        if head[..4] != self.mark() || head[4..] != manner.generation.to_be_bytes() {
            return Err(refused());
        }
        Ok(Position {
            internal_date_ms: i64::from_be_bytes(date),
            id: u64::from_be_bytes(id),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANNER: Manner = Manner {
        page_size_cap: None,
        padded: true,
        generation: 0,
    };

    #[test]
    fn a_token_is_good_for_its_own_list_and_generation_only() {
        let stale = Manner {
            generation: 1,
            ..MANNER
        };
        let position = Position {
            internal_date_ms: 1,
            id: 1,
        };
        let token = PageToken::Message.write(position, &MANNER);
        assert_eq!(PageToken::Message.read(&token, &MANNER), Ok(position));
        assert!(PageToken::Message.read(&token, &stale).is_err());
        assert!(PageToken::History.read(&token, &MANNER).is_err());
        assert!(PageToken::Message.read("", &MANNER).is_err());
    }
}
