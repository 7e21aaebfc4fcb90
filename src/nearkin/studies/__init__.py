"""Studies: a question, the runs that it takes, and what came of them.

A study is a module with

    TITLE, QUESTION                 a line, a paragraph
    recipes(data=..., seeds=..., ...) -> list[Recipe]
                                    its parameters are the options of `nearkin study`
    answer(rows) -> Answer          of the rows of those recipes

both functions pure. Two optional functions, pure as well:

    search(data=..., ...) -> list[Recipe]
                                    runs on validation classes that choose settings; their rows are
                                    then given to `recipes` as its argument `searched`
    measure(...) -> Iterator[dict]  in place of recipes, for a study that trains nothing by a
                                    recipe: plain rows, each with a "hash" of its settings
"""

from types import ModuleType

from nearkin.studies import toolkit

STUDIES: dict[str, ModuleType] = {
    "toolkit": toolkit,
}
