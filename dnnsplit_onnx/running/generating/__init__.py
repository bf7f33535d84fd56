"""Text from a decoder: tokens in, tokens out, and all that is above the model itself.

    decoder.py      what makes logits of token ids: a whole model, slices in process, or servers
    local.py        the first two of these
    roles.py        what the inputs of a decoder are: ids, masks, positions; filled in
    encoder.py      what runs once before a text, and what the decoder reads of it
    scores.py       what may come next, read from the logits or from what a head left of them
    text.py         one text: what was fed, fed again where the states were lost, cut back
    sampling.py     the choice of the next token
    drafting.py     several tokens a pass, proposed by a small model and verified by the large one
    tokenizer.py    between words and tokens; chats
    folder.py       what the files beside a model say: ends of text, longest text, tokenizer
    pieces.py       words as they come, and the texts that end them
    checks.py       what is refused before it is begun
    generator.py    all of it together

`decoder.Decoder` is the one seam: nothing above it knows where the model runs.
"""
