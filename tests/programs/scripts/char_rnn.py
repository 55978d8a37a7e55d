"""Karpathy's character model: GRU, truncated backpropagation, sampling."""

import random
import string

import torch
import torch.nn as nn
from torch.autograd import Variable

torch.manual_seed(3)
random.seed(3)

text = "the quick brown fox jumps over the lazy dog. pack my box with five dozen liquor jugs. " * 6
all_characters = string.printable
n_characters = len(all_characters)


def char_tensor(s):
    tensor = torch.zeros(len(s)).long()
    for c in range(len(s)):
        tensor[c] = all_characters.index(s[c])
    return Variable(tensor)


def random_training_set(chunk_len, batch_size):
    inp = torch.LongTensor(batch_size, chunk_len)
    target = torch.LongTensor(batch_size, chunk_len)
    for bi in range(batch_size):
        start = random.randint(0, len(text) - chunk_len - 1)
        chunk = text[start:start + chunk_len + 1]
        inp[bi] = char_tensor(chunk[:-1])
        target[bi] = char_tensor(chunk[1:])
    return Variable(inp), Variable(target)


class CharRNN(nn.Module):
    def __init__(self, input_size, hidden_size, output_size, model="gru", n_layers=1):
        super().__init__()
        self.hidden_size = hidden_size
        self.n_layers = n_layers
        self.encoder = nn.Embedding(input_size, hidden_size)
        self.rnn = nn.GRU(hidden_size, hidden_size, n_layers)
        self.decoder = nn.Linear(hidden_size, output_size)

    def forward(self, input, hidden):
        batch_size = input.size(0)
        encoded = self.encoder(input)
        output, hidden = self.rnn(encoded.view(1, batch_size, -1), hidden)
        output = self.decoder(output.view(batch_size, -1))
        return output, hidden

    def init_hidden(self, batch_size):
        return Variable(torch.zeros(self.n_layers, batch_size, self.hidden_size))


decoder = CharRNN(n_characters, 24, n_characters, n_layers=2)
optimizer = torch.optim.Adam(decoder.parameters(), lr=0.01)
criterion = nn.CrossEntropyLoss()

for epoch in range(1, 13):
    inp, target = random_training_set(12, 6)
    hidden = decoder.init_hidden(6)
    decoder.zero_grad()
    loss = 0
    for c in range(12):
        output, hidden = decoder(inp[:, c], hidden)
        loss += criterion(output.view(6, -1), target[:, c])
    loss.backward()
    nn.utils.clip_grad_norm_(decoder.parameters(), 5.0)
    optimizer.step()
    print("[%d] loss %.4f" % (epoch, loss.data.item() / 12))

hidden = decoder.init_hidden(1)
prime = Variable(char_tensor("the").unsqueeze(0))
for p in range(2):
    _, hidden = decoder(prime[:, p], hidden)
inp, predicted = prime[:, -1], "the"
for p in range(20):
    output, hidden = decoder(inp, hidden)
    top_i = torch.multinomial(output.data.view(-1).div(0.8).exp(), 1)[0]
    predicted += all_characters[top_i]
    inp = Variable(char_tensor(all_characters[top_i]).unsqueeze(0))
print(len(predicted))
