"""LLVM IR of the attributes and methods of a tensor that programs ask most.

They call Python's way where a tensor is a promise, or of another kind.  Each gets the tensor, whose
class CPython has looked at.
"""

from weft.runtime.wish_code import MOST_WORDS, SHAPE


def _fact(name: str, body: str) -> str:
    return f"""
define ptr @weft_fact_{name}(ptr %x, ptr %nothing) nounwind {{
entry:
  %none = word none
{body}
ask:
  %python = word {name}
  %answer = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %python, ptr %x, ptr null)
  ret ptr %answer
}}
"""


_VALUE = """
  %a = slot %x _a
  %ndarray = word ndarray
  %is_array = call i1 @is_a(ptr %a, ptr %ndarray)
  if %is_array known ask
known:
  %rank32 = get i32 %a 24
  %rank = sext i32 %rank32 to i64
  %dims = get ptr %a 32
  %descr = get ptr %a 56
"""
_NUMBER = """
  %number = call ptr @PyLong_FromLongLong(i64 %{0})
  ret ptr %number
"""
_COUNT = (
    _VALUE
    + """
  goto each
each:
  %k = phi i64 [ 0, %known ], [ %k1, %one ]
  %count = phi i64 [ 1, %known ], [ %count1, %one ]
  if %k slt %rank one all
one:
  %d = item i64 %dims %k
  %count1 = mul i64 %count, %d
  %k1 = add i64 %k, 1
  goto each
all:
"""
)
_FACTS = {
    "dim": _VALUE + _NUMBER.format("rank"),
    "numel": _COUNT + _NUMBER.format("count"),
    "__len__": _VALUE + """
  if %rank ne 0 first ask
first:
  %d = load i64, ptr %dims
""" + _NUMBER.format("d"),
    "shape": f"""
  %words = alloca [{MOST_WORDS + 1} x i64], align 64
  %at = call i64 @spell_shape(ptr %x, ptr %words)
  if %at slt 0 ask shaped
shaped:
  put i64 {2 * SHAPE + 1} %words [%at]
  %length = add i64 %at, 1
  %place = call ptr @place_of(ptr %words, i64 %length)
  %key = load ptr, ptr %place
  if %key is null ask told
told:
  %size = item ptr %key 1
  call void @Py_IncRef(ptr %size)
  ret ptr %size
""",
    "dtype": _VALUE + """
  %pairs = word dtypes
  goto next
next:
  %pair = phi ptr [ %pairs, %known ], [ %behind, %other ]
  %its = load ptr, ptr %pair
  if %its is null ask compare
compare:
  if %its is %descr found other
other:
  %behind = getelementptr ptr, ptr %pair, i64 2
  goto next
found:
  %dtype = item ptr %pair 1
  call void @Py_IncRef(ptr %dtype)
  ret ptr %dtype
""",
    "item": _COUNT + """
  if %count eq 1 modes ask
modes:
  %name_recorder = word recorder
  %recorder = call ptr @mode(ptr %name_recorder, ptr %none)
  if %recorder is %none kinds recorded
recorded:
  if %recorder is null error ask
error:
  ret ptr null
kinds:
  %data = get ptr %a 16
  %f32 = word float32
  %f64 = word float64
  %i64 = word int64
  if %descr is %f32 float more_kinds
float:
  %short = load float, ptr %data, align 1
  %wide = fpext float %short to double
  goto real
more_kinds:
  if %descr is %f64 double last_kind
double:
  %long = load double, ptr %data, align 1
  goto real
real:
  %value = phi double [ %wide, %float ], [ %long, %double ]
  %made = call ptr @PyFloat_FromDouble(double %value)
  ret ptr %made
last_kind:
  if %descr is %i64 whole ask_bool
ask_bool:
  %kind = get i8 %descr 24
  %is_bool = icmp eq i8 %kind, 98
  if %is_bool flag ask
flag:
  %byte = load i8, ptr %data
  %set = icmp ne i8 %byte, 0
  %true = word true
  %false = word false
  %truth = select i1 %set, ptr %true, ptr %false
  call void @Py_IncRef(ptr %truth)
  ret ptr %truth
whole:
  %integer = load i64, ptr %data, align 1
""" + _NUMBER.format("integer"),
    "detach": _VALUE + """
  %ghost = slot %x _ghost
  if %ghost is %none make ask
make:
  %y = call ptr @fresh()
  if %y is null done own
own:
  give ptr %a %y _a
  %bad = call i32 @link(ptr %y, ptr %x, i1 false)
  %is_bad = icmp ne i32 %bad, 0
  if %is_bad drop done
drop:
  call void @Py_DecRef(ptr %y)
  goto done
done:
  %r = phi ptr [ null, %make ], [ %y, %own ], [ null, %drop ]
  ret ptr %r
""",
}  # fmt: skip


def _method(name: str, body: str) -> str:
    """One that may be given arguments, which Python reads."""
    return f"""
define ptr @weft_fact_{name}(ptr %x, ptr %args, i64 %n, ptr %names) nounwind {{
entry:
  %bare = icmp eq i64 %n, 0
  %unnamed = icmp eq ptr %names, null
  %alone = and i1 %bare, %unnamed
  if %alone value ask
value:
{_VALUE}
  %flags = get i32 %a 64
  %contiguous = trunc i32 %flags to i1
{body}
ask:
  %python = word {name}
  if %names is null given count
count:
  %more = call i64 @PyTuple_Size(ptr %names)
  goto given
given:
  %named = phi i64 [ 0, %ask ], [ %more, %count ]
  %objects = add i64 %n, %named
  %room = add i64 %objects, 1
  %vector = alloca ptr, i64 %room
  store ptr %x, ptr %vector
  %rest = getelementptr ptr, ptr %vector, i64 1
  %bytes = shl i64 %objects, 3
  call void @llvm.memcpy.p0.p0.i64(ptr %rest, ptr %args, i64 %bytes, i1 false)
  %positional = add i64 %n, 1
  %answer = call ptr @PyObject_Vectorcall(ptr %python, ptr %vector, i64 %positional, ptr %names)
  ret ptr %answer
}}
"""


_METHODS = {
    "contiguous": """
  if %contiguous itself ask
itself:
  call void @Py_IncRef(ptr %x)
  ret ptr %x
""",
    "is_contiguous": """
  %true = word true
  %false = word false
  %truth = select i1 %contiguous, ptr %true, ptr %false
  call void @Py_IncRef(ptr %truth)
  ret ptr %truth
""",
}
FACTS = (*_FACTS, *_METHODS)  # of a tensor class, whose functions of Python are words
METHODS = tuple(_METHODS)
TEXT = "".join(
    [_fact(name, known) for name, known in _FACTS.items()]
    + [_method(name, known) for name, known in _METHODS.items()]
)
