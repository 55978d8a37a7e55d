"""A part-of-speech tagger: packed LSTM over sentences of different lengths, ignore_index."""

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

torch.manual_seed(1)

training_data = [
    ("The dog ate the apple".split(), ["DET", "NN", "V", "DET", "NN"]),
    ("Everybody read that book".split(), ["NN", "V", "DET", "NN"]),
    ("The cat sat".split(), ["DET", "NN", "V"]),
    ("That dog read the big red book".split(), ["DET", "NN", "V", "DET", "ADJ", "ADJ", "NN"]),
]
word_to_ix = {"<pad>": 0}
for sent, tags in training_data:
    for word in sent:
        word_to_ix.setdefault(word, len(word_to_ix))
tag_to_ix = {"DET": 0, "NN": 1, "V": 2, "ADJ": 3}


class LSTMTagger(nn.Module):
    def __init__(self, embedding_dim, hidden_dim, vocab_size, tagset_size):
        super(LSTMTagger, self).__init__()
        self.word_embeddings = nn.Embedding(vocab_size, embedding_dim, padding_idx=0)
        self.lstm = nn.LSTM(embedding_dim, hidden_dim, num_layers=2, batch_first=True,
                            bidirectional=True, dropout=0.2)
        self.hidden2tag = nn.Linear(2 * hidden_dim, tagset_size)

    def forward(self, sentences, lengths):
        embeds = self.word_embeddings(sentences)
        packed = pack_padded_sequence(embeds, lengths, batch_first=True, enforce_sorted=False)
        out, (h, c) = self.lstm(packed)
        out, lens = pad_packed_sequence(out, batch_first=True)
        return F.log_softmax(self.hidden2tag(out), dim=2), h


lengths = torch.tensor([len(s) for s, _ in training_data])
inputs = pad_sequence([torch.tensor([word_to_ix[w] for w in s]) for s, _ in training_data], batch_first=True)
targets = pad_sequence([torch.tensor([tag_to_ix[t] for t in ts]) for _, ts in training_data],
                       batch_first=True, padding_value=-100)
model = LSTMTagger(6, 6, len(word_to_ix), len(tag_to_ix))
loss_function = nn.NLLLoss()
optimizer = optim.SGD(model.parameters(), lr=0.5)
for epoch in range(30):
    model.zero_grad()
    tag_scores, h = model(inputs, lengths)
    loss = loss_function(tag_scores.view(-1, 4), targets.view(-1))
    loss.backward()
    optimizer.step()
    if epoch % 3 == 0:
        print(epoch, "%.6f" % loss, "%.5f" % h.norm().item())
model.eval()
with torch.no_grad():
    scores, _ = model(inputs, lengths)
    correct = ((scores.argmax(-1) == targets) & (targets != -100)).sum().item()
    print("correct", correct, "of", int(lengths.sum()))
