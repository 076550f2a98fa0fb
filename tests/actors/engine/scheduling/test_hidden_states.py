"""What is kept of hidden states, page by page."""

import numpy as np

from actors.engine.scheduling.hidden_states import HiddenStates, PageStates


def test_hidden_states_of_shared_pages_are_those_of_their_source() -> None:
    source = PageStates()
    hidden = HiddenStates()
    hidden.place([source], own_pages=2)
    source.pooled = np.ones(3, np.float32)
    assert hidden.pages[0].pooled is source.pooled
    assert [page.pooled for page in hidden.pages[1:]] == [None, None]
    assert hidden.pages[1] is not hidden.pages[2]
