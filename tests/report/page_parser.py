"""What a page holds, for tests."""

import html.parser


class Page(html.parser.HTMLParser):
  """Collects tags, where they point and what they say."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.sources, self.text = [], [], ''
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.sources += [v for k, v in attrs if k in ('src', 'href')]

  def handle_data(self, data):
    self.text += data
