"""Line retrieval: the value of one line among many lines of the same form.

The task of LongEval (Li et al., "How Long Can Open-Source LLMs Truly Promise on
Context Length?", lmsys.org/blog/2023-06-29-longchat; LongChat repository,
`longeval/utils.py`), in our own words. Every line gives a two-word key a number
from 1 to 50,000; keys and values are distinct within a prompt. The size counts
lines (`line_retrieval_680`) or tokens of the model's own vocabulary, EOS
included (`line_retrieval_tokens_2048`).
"""

from collections.abc import Iterator

import numpy as np

from t5_align.tasks.generators import haystack, longeval, task
from t5_align.tasks.generators.template import Template

# Short words, so that one line and its question fit 64 bytes.
KEY_ADJECTIVES = """amber ample arid azure bare basic blank bleak blond blue
blunt bold brave brief brisk broad bronze brown busy calm candid cheap civic
clean clear clever cold cool coral cosmic cozy crisp cubic curly damp dapper
dark dear deep dense dim dizzy double dry dull dusty eager early easy elder
empty equal even exact faint fair false famous fancy fast festal fierce final
fine firm flat fluffy fond formal frail frank free fresh frosty full funny
fuzzy gentle giant glad glossy golden good grand gray green grim happy hardy
harsh hasty heavy hidden high hollow honest huge humble icy ideal idle indigo
inner ivory jade jolly keen kind large late lazy lean level light lilac little
lively local lone long loud loyal lucid lucky lunar magic major maroon mellow
merry mild minor modern moist mossy muddy mute narrow navy neat new nimble
noble noisy novel odd olive open orange oval pale patchy perky pink placid
plain plump polar polite prime proud pure purple quick quiet rapid rare raw
ready red rich rigid ripe robust rosy rough round royal ruby rural rusty
sacred salty sandy scarce serene shaggy sharp shiny short shy silent silver
simple sleek slim slow small smart smooth snowy sober soft solar solid sour
spare spicy square stable stark steady steep stern stiff still stout strong
sunny sweet swift tall tame tart tender thick thin tidy timid tiny tough true
upper urban usual vague vast velvet violet vital vivid warm wary wavy weary
white whole wide wild windy wise witty wooden woolly yellow young""".split()
KEY_NOUNS = """acorn album anchor ant apple apron arch arrow aspen atlas attic
badge badger ball banana banjo bank barn barrel basil basket bath beach bead
beam bear beaver bed bee beetle bell bench berry bike bird bison boat bone
bonnet book boot bottle bowl box branch bread brick bridge broom brush bucket
bugle bull bus bush butter button cabin cable cactus cake camel camera canal
candle canoe cape card carp carpet carrot cart castle cave cedar cello chain
chair chalk cheese cherry chest church cider circle clam cliff clock cloud
clover coast coat cobra coin collar comb comet cookie copper corn cotton couch
cow crab cradle crane crater crow crown cup daisy deer desert desk dish dock
dog dome donkey door dove dragon drawer dream dress drum duck eagle easel
elbow elk elm engine fabric falcon fan farm fawn fence fern ferry fiddle field
fig finch fish flag flame flask flower flute foot forest fork fort fox frog
garden garlic gate ghost ginger glass globe glove goat goose grape grass
guitar gull hammer harbor hare harp hat hawk hazel hedge helmet hen herb heron
hill hinge honey hook horn horse hotel house ink iron island jacket jaguar jar
jewel jungle kettle kite kitten knot ladder lake lamb lamp lemon lens lily
lime linen lion lizard llama lobby locket lotus lynx magnet mango maple marble
market mask meadow medal melon mill mint mirror mitten moose moss motor muffin
mule museum nail needle nest nickel oak oasis ocean onion orbit orchid otter
owl oyster paddle palace palm panda paper parrot pasta path peach pear pebble
pen pencil pepper piano pigeon pillow pine pipe pirate planet plate plum
pocket pond pony poppy potato prism puppet puppy quail quartz quilt rabbit
radio radish raft rail raven reef ribbon rice ring river robin rocket roof
rose rudder saddle sail salad salmon sand scarf school seal seed shark sheep
shell shield ship shirt shoe shovel silk skunk sled snail soap sofa spider
spoon squid stable stamp star statue stone stork stove stream street string
summit swan sword table tailor teapot temple tent thorn throne tiger toast
tomato torch tower toy train tray tree trout truck tulip tunnel turkey turtle
valley vase vessel violin wagon wallet walnut walrus water whale wheat wheel
willow window winter wolf wool wren yacht zebra""".split()
NUM_KEYS = len(KEY_ADJECTIVES) * len(KEY_NOUNS)
MAX_VALUE = 50_000

TEMPLATES = (
  Template(
    name='plain',
    needle='line {key}: {value}',
    prompt='{context}\nWhat is in line {key}?',
    target='{key}: {value}',
    separator='\n',
  ),
  Template(
    name='ledger',
    needle='The account {key} holds {value} coins.',
    prompt=(
      'This ledger says how many coins each account holds.\n\n{context}'
      '\n\nHow many coins does the account {key} hold? Answer:'
    ),
    target='The account {key} holds {value}.',
  ),
  Template(
    name='register',
    needle='{key} = {value};',
    prompt=(
      'Each name below is given one number. {context} Question: which'
      ' number is given to {key}? Repeat the name, then the number.'
    ),
    target='{key} = {value}',
  ),
)


def _pairs(rng: np.random.Generator, count: int) -> Iterator[tuple[str, int]]:
  """Yield distinct keys with distinct values."""
  keys = rng.choice(NUM_KEYS, count, replace=False).tolist()
  values = rng.choice(MAX_VALUE, count, replace=False).tolist()
  for key, value in zip(keys, values, strict=True):
    adjective, noun = divmod(key, len(KEY_NOUNS))
    yield f'{KEY_ADJECTIVES[adjective]} {KEY_NOUNS[noun]}', value + 1


def draw(
  rng: np.random.Generator, request: task.Request, depth: float
) -> task.Sample:
  """Draw one sample of so many lines or tokens; `depth` of them before it."""
  size, template = request.numbers.get('lines'), request.template
  limit = min(NUM_KEYS, MAX_VALUE)
  if size is not None and size > limit:
    raise ValueError(f'{size} lines are too many; there are {limit} keys.')
  # A line is longer than a token: as many pairs as tokens always suffice.
  pairs = _pairs(rng, min(request.size or 1, limit))
  key, value = next(pairs)
  needle = template.needle.format(key=key, value=value)
  lines = (template.needle.format(key=k, value=v) for k, v in pairs)

  def render(context: str) -> str:
    return template.prompt.format(context=context, key=key)

  if size is not None:
    others = list(lines)
    slot = round(depth * len(others))
    prompt = render(
      template.separator.join([*others[:slot], needle, *others[slot:]])
    )
    depth = slot / len(others) if others else depth
  else:
    prompt, depth = haystack.bury(
      needle,
      lines,
      request.numbers['tokens'],
      request.encode,
      template.separator,
      render,
      depth,
    )
  return task.Sample(
    id='',
    prompt=prompt,
    target=template.target.format(key=key, value=value),
    answers=(str(value),),
    depth=depth,
  )


FAMILY = task.Family(
  name='line_retrieval',
  version='1.0',
  description='The number of one line among many lines of the same form.',
  forms=('line_retrieval_{lines}', 'line_retrieval_tokens_{tokens}'),
  typical=tuple(
    [f'line_retrieval_{n}' for n in (200, 300, 400, 500, 600, 680)]
    + [f'line_retrieval_tokens_{2**n}' for n in range(9, 15)]
  ),
  measures=('line_retrieval_match', 'line_retrieval_match_repaired'),
  max_new_tokens=100,  # as published
  templates=TEMPLATES,
  placeholders={
    'needle': (
      frozenset({'key', 'value'}),
      frozenset({'key', 'value'}),
    ),
    'prompt': (frozenset({'context', 'key'}), frozenset({'context', 'key'})),
    'target': (frozenset({'value'}), frozenset({'key', 'value'})),
  },
  draw=draw,
  read=longeval.read_lines,
  source=longeval.LINES,
  has_prompts=True,
)
